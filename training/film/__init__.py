"""Films in and out of a trained model.

In: a film's frames and sound. Out: H.264 with the sound in step.
"""
