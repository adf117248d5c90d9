"""Figures of evaluation, each by its definition; ``table`` says of every one how far it was verified.

In: made and true pictures. Out: one figure per pair or per set.
"""
