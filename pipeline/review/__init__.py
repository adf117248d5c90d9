"""Screening in a browser: the server and its page.

In: the clips of a workspace. Out: reviews in its store.
"""
