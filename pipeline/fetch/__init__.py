"""Step 1, source to file: download, and find out what a file really is.

In: a source of the manifest. Out: its bytes with their origin (``Fetched``), and a ``Video`` record.
"""

# Raised when code here changes what it computes; part of every key of that stage.
VERSIONS = {"acquire": 1, "probe": 1}
