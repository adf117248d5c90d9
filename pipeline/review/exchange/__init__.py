"""Reviews carried out of a workspace and back in: files, bundles, Label Studio.

In: clips and reviews. Out: files that other tools read, and reviews from theirs.
"""
