"""The exceptions that a user of the trainer may meet; anything else is a bug.

Each is raised with one sentence: what was wrong, where, and what to do about it. The trainer cannot import the
builder's tree, so it has its own; both end at the command line as one line without a traceback.
"""


class TrainingError(Exception):
    """Base of every error of the trainer meant for a user (exit code 1)."""


class TrainingUsageError(TrainingError):
    """The user's own input is wrong: configuration, a missing or wrong weights file (exit code 2)."""


class CheckpointError(TrainingError):
    """A checkpoint is damaged, untrusted, or of another configuration (exit code 2)."""
