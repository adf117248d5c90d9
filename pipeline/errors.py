"""The exceptions a user may meet; anything else is a bug and may crash its item.

Each is raised with one sentence: what was wrong, where, and what to do about it.
``reason`` is the class that the ledger records and that ``retry`` filters by.
"""


class AnitalkError(Exception):
    """Base of every error meant for a user."""

    reason = "permanent"


class UsageError(AnitalkError):
    """The user's own input is wrong: arguments, configuration, manifest, a missing weight (exit code 2)."""


class WorkspaceError(AnitalkError):
    """The workspace cannot be used: locked, read-only, full, or damaged (exit code 1)."""


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
