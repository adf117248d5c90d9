"""How one thing becomes the next, in process and without an orchestrator."""
