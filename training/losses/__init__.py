"""Losses that several recipes share.

In: made and true pictures, or a discriminator's answers. Out: scalars, reduced as their weights expect.
"""
