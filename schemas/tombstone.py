"""What remains of a source that was taken down: enough to keep it out for good, and nothing that shows it."""

import hashlib
from collections.abc import Collection

from schemas.base import Id, Record
from schemas.source import Sha256, Source
from schemas.uri import local_path, redact, uri_scheme


class Tombstone(Record):
    """A source that no build may use again: under its id, from an address it had, or as a file it was.

    ``sha256s`` are the files that were fetched for it, ``uri_hashes`` the addresses (see ``uri_hash``) that they
    came from, ``clip_ids`` the clips that were made of them. ``at`` is ISO 8601, UTC.
    """

    source_id: Id
    sha256s: tuple[Sha256, ...] = ()
    uri_hashes: tuple[Sha256, ...] = ()
    clip_ids: tuple[Id, ...] = ()
    reason: str = ""
    at: str = ""

    def covers(self, *, source_id: str, uri: str, sha256: str | None = None) -> bool:
        """Whether a source of that id, address or content is the one that was taken down."""
        return source_id == self.source_id or sha256 in self.sha256s or uri_hash(uri) in self.uri_hashes

    def joined_with(self, more: "Tombstone") -> "Tombstone":
        """Both in one: everything that either covers, the first's time, the latest reason given."""
        return self.model_copy(
            update={
                "sha256s": _union(self.sha256s, more.sha256s),
                "uri_hashes": _union(self.uri_hashes, more.uri_hashes),
                "clip_ids": _union(self.clip_ids, more.clip_ids),
                "reason": more.reason or self.reason,
                "at": self.at or more.at,
            }
        )


def uri_hash(uri: str) -> str:
    """SHA-256 of an address: equal for links that differ in signatures alone, different for files of one name."""
    plain = local_path(uri).as_posix() if uri_scheme(uri) == "file" else redact(uri)
    return hashlib.sha256(plain.encode()).hexdigest()


def covering(stones: Collection[Tombstone], source: Source, sha256: str | None = None) -> Tombstone | None:
    """The tombstone that keeps a source out, if any; ``sha256`` is its file's, where that is known."""
    digests = {sha256 or source.sha256, source.sha256}
    for stone in stones:
        if any(stone.covers(source_id=source.id, uri=source.uri, sha256=digest) for digest in digests):
            return stone
    return None


def _union(left: Collection[str], right: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted({*left, *right}))
