"""Measures a trained model on held-out pairs.

In: a checkpoint and a release. Out: tables, records and pictures.
"""
