"""Step 4, all clips to a choice: who is who, what is there twice, what stays, which split.

In: the clips of a workspace and what reviewers said. Out: a decision and a split for every clip.
"""

# Raised when code here changes what is told of a collection; part of every such key.
VERSIONS = {"collection": 1}
