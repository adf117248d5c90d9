"""Step 5, choice to shards: pack, verify, compare, take down.

In: chosen clips. Out: an immutable release of WebDataset tars, its tables and its record.
"""
