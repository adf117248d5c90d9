"""Builds and trainings as Prefect deployments.

In: parameters of a run. Out: its states, artifacts and results.
"""
