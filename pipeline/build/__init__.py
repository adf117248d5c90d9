"""Steps 1 to 3 together: jobs, keys, and where every source stands.

In: sources and a configuration. Out: results in a workspace.
"""
