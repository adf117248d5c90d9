"""What ``anitalk review export``, ``import`` and ``agreement`` do."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote

from flows.cli.rows import Format, write_file, write_rows
from pipeline.review.exchange.agreement import agreement
from pipeline.review.exchange.importing import Incoming, read_reviews, store
from pipeline.review.exchange.rows import to_csv, to_jsonl, to_parquet
from pipeline.review.exchange.screened import read_screened
from pipeline.store.reviews import ReviewLog
from pipeline.store.workspace import Workspace
from schemas.errors import UsageError
from schemas.review import Review
from schemas.review_report import AgreementRow

_WRITERS: dict[str, Callable[[Iterable[Review]], bytes]] = {
    "jsonl": to_jsonl,
    "csv": to_csv,
    "parquet": to_parquet,
}


def export_tables(workspace: str, form: str, output: Path | None) -> None:
    """Write all reviews, also those of clips that are no longer there.

    Raises:
        UsageError: for Parquet to a terminal, or a file that cannot be written.
    """
    data = _WRITERS[form](ReviewLog(Workspace(workspace)).read())
    if output is not None:
        write_file(output, data)
        return
    if form == "parquet" and sys.stdout.isatty():
        raise UsageError("Parquet is binary: name a file with -o, or redirect standard output")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def export_tasks(workspace: str, folder: Path, video_prefix: str | None) -> None:
    """Write a folder of tasks and labelling interface for Label Studio, with the films where it is not told of them."""
    from pipeline.review.exchange.bundle import film_of
    from pipeline.review.exchange.labelstudio import label_studio_tasks, labelling_config

    screened = read_screened(Workspace(workspace))
    _empty(folder)
    # Label Studio serves folders below its document root; the folder's own parent is the one we can name.
    prefix = f"/data/local-files/?d={quote(folder.absolute().name)}/videos/" if video_prefix is None else video_prefix
    if video_prefix is None:
        for clip_id, finished in screened.clips.items():
            write_file(folder / "videos" / f"{clip_id}.mp4", film_of(screened, finished))
    write_file(folder / "labeling-config.xml", labelling_config(screened).encode())
    write_file(folder / "tasks.json", label_studio_tasks(screened, prefix))
    _print_line(f"{folder}: tasks.json with {len(screened.clips)} tasks, labeling-config.xml")
    if video_prefix is None:
        _print_line("start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and")
        _print_line(
            f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={folder.absolute().parent}, and add {folder.absolute()}/videos"
        )
        _print_line("to the project as local source storage; then import tasks.json")


def export_bundle(workspace: str, target: Path) -> None:
    """Write a folder or zip that a colleague opens in a browser."""
    from pipeline.review.exchange.bundle import write_bundle

    screened = read_screened(Workspace(workspace))
    if target.suffix.lower() != ".zip":
        _empty(target)
    write_bundle(screened, target)
    page = target if target.suffix.lower() == ".zip" else target / "index.html"
    _print_line(f"{page}: {len(screened.clips)} clips; what is saved there comes back with 'anitalk review import'")


def import_file(workspace: str, path: Path, *, skip_unknown: bool) -> None:
    """Add the reviews of a file, and say what became of them.

    Raises:
        UsageError: when anything in the file is wrong; then nothing was added.
    """
    opened = Workspace(workspace)
    incoming = read_reviews(path, read_screened(opened), skip_unknown=skip_unknown)
    num_new = store(ReviewLog(opened), incoming)
    for line in _import_lines(incoming, num_new):
        _print_line(line)


def _import_lines(incoming: Incoming, num_new: int) -> Iterable[str]:
    clips = {review.clip_id for review in incoming.reviews}
    num_old = incoming.num_there + len(incoming.reviews) - num_new
    yield f"{num_new} reviews of {len(clips)} clips imported, {num_old} were there already"
    if incoming.num_stale:
        yield f"{incoming.num_stale} are of other versions of their clips: kept, and decide nothing"
    for why, count in sorted(incoming.left_out.items()):
        yield f"{count} left out: {why}"


def show_agreement(workspace: str, form: Format, output: Path | None) -> None:
    """Write one row per pair of reviewers, and one per reviewer with blind second looks."""
    report = agreement(ReviewLog(Workspace(workspace)).read())
    rows = [row.model_dump() for row in (*report.pairs, *report.second_looks)]
    if form is Format.TABLE:  # names come from files of others, and a terminal obeys some characters
        rows = [row | {name: _printable(row[name]) for name in ("first", "second")} for row in rows]
    write_rows(rows, tuple(AgreementRow.model_fields), form, output)
    if form is Format.TABLE and output is None and not rows:
        judged = (
            "nobody has judged a clip" if not report.num_reviewers else "no clip was judged by two people, or twice"
        )
        _print_line(f"{judged} so far")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already: name a new folder with -o")


def _print_line(line: str) -> None:
    print(line)  # noqa: T201
