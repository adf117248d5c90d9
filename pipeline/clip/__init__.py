"""Step 3, plan to clip: crop, encode and measure in one pass over the frames.

In: a planned clip. Out: a ``Clip`` record and the members of its sample.
"""
