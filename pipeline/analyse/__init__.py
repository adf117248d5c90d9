"""Step 2, file to plan: shots and face tracks from one pass over the frames.

In: a video. Out: a ``SourcePlan`` with shots, tracks and planned clips.
"""
