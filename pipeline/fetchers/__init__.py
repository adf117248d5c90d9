"""How each kind of address is fetched; ``pipeline.acquire`` decides which one is asked."""
