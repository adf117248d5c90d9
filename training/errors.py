"""The exceptions a user of the trainer may meet; anything else is a bug and is allowed to crash.

Each is raised with one sentence: what was wrong, where, and what to do about it. A tree of its own, since the
trainer runs where the builder's packages are not installed.
"""


class TrainingError(Exception):
    """Base of every error of the trainer that is meant for a user (exit code 1)."""


class UsageError(TrainingError):
    """The user's own input is wrong: arguments, configuration, a missing file of weights (exit code 2)."""


class DataError(TrainingError):
    """Shards cannot be reached, read or believed."""


class CheckpointError(TrainingError):
    """A checkpoint is damaged, incomplete, or cannot be written."""
