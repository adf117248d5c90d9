"""Networks and classifiers behind small interfaces; loaded once and passed in.

In: model files by name (``files``). Out: detectors, landmarkers, pose and speech networks.
"""
