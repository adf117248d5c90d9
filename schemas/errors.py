"""The exceptions a user may meet, in one tree; anything else is a bug.

Each is raised with one sentence: what was wrong, where, and what to do about it. ``exit_code`` is what the command line
ends with. Of sources, ``reason`` is the class that the ledger records and that ``anitalk retry`` filters by.
"""

from typing import ClassVar

EXIT_FAULTS, EXIT_USAGE, EXIT_SCREENING, EXIT_INTERRUPTED, EXIT_STOPPED = 1, 2, 3, 130, 143


class AnitalkError(Exception):
    """Base of every error meant for a user."""

    exit_code: ClassVar[int] = EXIT_FAULTS
    reason: ClassVar[str] = "permanent"


class UsageError(AnitalkError):
    """The user's own input is wrong: arguments, configuration, manifest, a missing weights file."""

    exit_code = EXIT_USAGE


class WorkspaceError(AnitalkError):
    """The workspace cannot be used: locked, read-only, full, or damaged."""


class SourceError(AnitalkError):
    """One source cannot be used and trying again will not help."""


class TransientError(SourceError):
    """One source failed for a reason that may pass: network, 5xx, a stalled transfer."""

    reason = "transient"


class ThrottledError(SourceError):
    """The host asked us to slow down (429, or a site's own wording)."""

    reason = "throttled"


class DecodeError(SourceError):
    """The media file is damaged, or is not what it claims to be."""

    reason = "decode"


class DataError(AnitalkError):
    """Shards that a training or an evaluation reads cannot be reached, read or believed."""


class CheckpointError(AnitalkError):
    """A checkpoint is damaged, incomplete, or cannot be written."""
