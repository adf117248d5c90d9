"""How a source becomes a file, and what the file must be able to do."""

from schemas.base import Record


class AcquireConfig(Record):
    """How sources are fetched."""

    schemes: tuple[str, ...] = ("http", "https", "s3", "gs", "file")
    """Kinds of addresses that are fetched."""
    allow_private_addresses: bool = False
    """Whether loopback, link-local and private addresses may be fetched from; for tests and intranets."""
    max_bytes: int = 8 * 1024**3
    """Largest file in bytes; a 1080p film of three hours is about 6 GB."""
    max_duration_s: float = 4 * 3600.0
    """Longest web video in seconds."""
    max_height_px: int = 1080
    """Tallest picture in pixels that is asked for of a web video; the paper collects 1080p."""
    max_redirects: int = 5
    """How many redirects are followed, each checked like an address of the manifest."""
    connect_timeout_s: float = 20.0
    """Seconds to wait for a connection."""
    stall_timeout_s: float = 60.0
    """Seconds without a byte that end an attempt."""
    num_attempts: int = 4
    """How often a source is tried while its failures may pass."""
    backoff_s: float = 2.0
    """Seconds before the second attempt; doubles with every further one."""
    host_interval_s: float = 5.0
    """Seconds between web videos of one host: yt-dlp's threads report throttling near 300 per hour."""
    host_videos_per_hour: int = 250
    """Web videos of one host in an hour; yt-dlp #16147 saw about 300 per session."""
    file_interval_s: float = 1.0
    """Seconds between requests for plain files of one host; chosen."""
    throttle_cooldown_s: float = 2 * 3600.0
    """Seconds for which a host is left alone that asked for fewer requests; chosen."""
    web_format: str = "bv*[height<={max_height_px}]+ba/b"
    """yt-dlp's format expression; picture and sound come as one file, so that nothing drifts."""
    web_extractors: tuple[str, ...] = ("default",)
    """yt-dlp's extractors, by name or pattern; "default" includes the generic one."""


class ProbeConfig(Record):
    """What a file must be able to do before work is spent on it."""

    check_s: float = 1.0
    """Seconds that are decoded at the beginning and at the end of the file."""
    max_side_px: int = 8192
    """Longest side of a picture in pixels."""
    min_side_px: int = 64
    """Shortest side of a picture in pixels."""
    max_duration_s: float = 4 * 3600.0
    """Longest file in seconds."""
    max_missing_s: float = 1.0
    """Seconds by which the last frame that decodes may lie before the end that the header claims; it may claim
    anything."""
