"""Jobs performed on a Ray cluster.

In: jobs. Out: their records, or what became of the process.
"""
