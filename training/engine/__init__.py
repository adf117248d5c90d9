"""Runs a recipe: settings, launch, steps, checkpoints, alarms.

In: a recipe and batches. Out: the folder of a run.
"""
