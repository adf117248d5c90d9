"""How each system is trained: a folder per recipe.

In: batches. Out: losses, networks and pictures to look at.
"""
