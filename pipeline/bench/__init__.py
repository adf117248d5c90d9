"""Measure the models on hand-labelled media."""
