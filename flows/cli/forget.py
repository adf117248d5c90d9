"""What a take-down did, said to a person."""

from collections.abc import Sequence

from pipeline.release.takedown import Takedown, forget
from pipeline.store.workspace import Workspace


def run_forget(
    source: str, workspace: str, *, reason: str, name: str | None, more_releases: Sequence[str], drop_old: bool
) -> None:
    """Take a source down and print what was done, and what is left for the user to do."""
    place = Workspace(workspace)
    with place.lock():
        done = forget(place, source, reason=reason, name=name, more_releases=more_releases, drop_old=drop_old)
    for line in _lines(done):
        print(line)  # noqa: T201


def _lines(done: Takedown) -> list[str]:
    stone = done.tombstone
    counts = (
        _count(done.num_results, "stage result"),
        _count(done.num_media, "fetched file"),
        _count(done.num_reviews, "review"),
    )
    lines = [f"forgotten {stone.source_id}: deleted {', '.join(counts)}"]
    others = [name for name in done.source_ids if name != stone.source_id]
    if others:
        lines.append(f"the same film under other ids went with it: {', '.join(others)}")
    for one in done.rewritten:
        if one.successor is None:
            lines.append(f"release  {one.old.storage.uri} held nothing else: no release takes its place")
        else:
            lines.append(f"release  {one.successor}  (in place of {one.old.folder})")
    if done.dropped:
        lines.append(f"deleted  {', '.join(done.dropped)}")
    if done.holding:
        lines.append(
            f"still holding the material: {', '.join(done.holding)}; "
            f"'anitalk forget {stone.source_id} --drop-old' with the same options deletes "
            f"{'it' if len(done.holding) == 1 else 'them'}"
        )
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
