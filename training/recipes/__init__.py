"""How each system is trained: its networks, its losses, and what to look at."""
