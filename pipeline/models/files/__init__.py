"""Which model files there are, where they lie, and whether they are the right ones; loads no network.

In: names of the configuration. Out: verified paths, digests and licences.
"""
