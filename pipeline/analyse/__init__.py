"""Step 2, file to plan: shots and face tracks from one pass over the frames.

In: a video. Out: a ``SourcePlan`` with shots, tracks and planned clips.
"""

# Raised when code here changes what it computes; part of every key of that stage.
VERSIONS = {"analyse": 2, "plan": 2}
