"""What is kept, on a disk or in an object store: results, the ledger, reviews, tombstones.

In: records and bytes by key. Out: the same again, whole or not at all.
"""
