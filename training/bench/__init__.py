"""What reading, training and animating cost on this machine.

In: shards or random tensors. Out: tables of ratios.
"""
