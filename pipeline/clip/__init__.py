"""Step 3, plan to clip: crop, encode and measure in one pass over the frames.

In: a planned clip. Out: a ``Clip`` record and the members of its sample.
"""

# Raised when code here changes what every clip is; part of every key of that stage. Where one meter alone changes, its
# own version is raised instead (``Meter.version``), and only clips that it measured are made again.
VERSIONS = {"clip": 3, "trim": 1}
