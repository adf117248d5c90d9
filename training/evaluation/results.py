"""What an evaluation found, as a record and as a table beside the paper's figures.

Only what decides the numbers is written down, and nothing of when or where: equal inputs give equal bytes.
"""

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from schemas.base import Record
from schemas.release import Split
from training.evaluation.metrics.table import BY_NAME, METRICS, MIN_FID_PICTURES, Row
from training.evaluation.protocols import Protocol
from training.recipes.base import Literature

_ROWS: dict[Row, str] = {"made": "made", "source": "the source itself", "truth": "real frames"}
_ARROWS = {"higher": "↑", "lower": "↓"}
_BY_FACE = {metric.name for metric in METRICS if "points" in metric.looks}


class Figure(Record):
    """A metric's value over ``count`` pictures; None where nothing counted, or where it is infinite."""

    value: float | None
    count: NonNegativeInt


class Direction(Record):
    """Who drives whom: figures by row, then metric."""

    driving_domain: str
    source_domain: str
    num_pairs: PositiveInt
    num_frames: PositiveInt
    num_real_frames: PositiveInt
    rows: dict[Row, dict[str, Figure]]


class MetricNote(Record):
    """What a column is: against what it was verified (empty: nothing), and the sha256 of the files it looked with."""

    name: str
    verified: str
    weights: dict[str, str]


class Measured(Record):
    """All that decides the numbers of an evaluation; two are comparable where these agree but for the checkpoint."""

    format_version: Literal[1] = 1
    checkpoint: str
    checkpoint_sha256: str
    release: str
    shards: str
    split: Split
    protocol: Protocol
    seed: NonNegativeInt
    pairs_sha256: str
    image_px: PositiveInt
    motion: Literal["absolute"] = "absolute"
    metrics: tuple[MetricNote, ...]


class EvaluationResults(Record):
    """``results.json``."""

    measured: Measured
    groups: tuple[Direction, ...]


def table(results: EvaluationResults, literature: Literature) -> str:
    """``results.md``: what was measured, a table per direction beside published figures, and what these are worth."""
    about = results.measured
    made_by = f"Checkpoint `{about.checkpoint}` ({about.checkpoint_sha256[:12]}), {about.image_px} px"
    made_of = f"release `{about.release}`, split `{about.split}`"
    pairs = f"pairs drawn with seed {about.seed} ({about.pairs_sha256[:12]})"
    lines = [f"# {about.protocol}", "", f"{made_by}, {about.motion} motion; {made_of}; {pairs}."]
    if about.split == "train":
        lines += ["", "**These clips are of the split `train`: a model may have learned them by heart.**"]
    names = [note.name for note in about.metrics]
    for group in results.groups:
        lines += ["", *_direction(about, group, names, literature)]
    return "\n".join([*lines, "", *_notes(results, literature), ""])


def _direction(about: Measured, group: Direction, names: Sequence[str], literature: Literature) -> list[str]:
    published = literature.figures.get((about.protocol, group.driving_domain, group.source_domain), {})
    extra = [name for figures in published.values() for name in figures if name not in names]
    columns = [*names, *dict.fromkeys(extra)]
    heads = [f"{name} {_ARROWS[BY_NAME[name].better] if name in BY_NAME else ''}".strip() for name in columns]
    title = group.source_domain
    if group.driving_domain != group.source_domain:
        title = f"{group.driving_domain} → {group.source_domain}"
    lines = [
        f"## {title}",
        "",
        f"{group.num_pairs} pairs, {group.num_frames} frames made, {group.num_real_frames} real frames beside them.",
        "",
        f"| | {' | '.join(heads)} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    for row, title_of_row in _ROWS.items():
        figures = group.rows.get(row, {})
        if figures:
            cells = [_cell(name, figures[name], group, row) if name in figures else "–" for name in columns]
            lines.append(f"| {title_of_row} | {' | '.join(cells)} |")
    for who, values in published.items():
        cells = [f"{values[name]:g}" if name in values else "–" for name in columns]
        lines.append(f"| *{who}, published* | {' | '.join(cells)} |")
    return lines


def _cell(name: str, figure: Figure, group: Direction, row: Row) -> str:
    if figure.value is None:
        return "∞" if name == "psnr" and figure.count else "none"
    text = f"{figure.value:.3f}" if abs(figure.value) >= 1 else f"{figure.value:.4f}"
    if name == "fid":
        return text + ("†" if figure.count < MIN_FID_PICTURES else "")
    whole = group.num_real_frames if row == "truth" else group.num_frames
    return text if figure.count == whole else f"{text} ({figure.count})"


def _notes(results: EvaluationResults, literature: Literature) -> list[str]:
    about, every = results.measured, [figures for group in results.groups for figures in group.rows.values()]
    unverified = [note.name for note in about.metrics if not note.verified]
    verified = [f"{note.name} ({note.verified})" for note in about.metrics if note.verified]
    notes = [f"Verified against a reference: {', '.join(verified) or 'none'}."]
    if unverified:
        notes.append(f"**Not verified against a reference**: {', '.join(unverified)}.")
    if any("truth" in group.rows for group in results.groups):
        frames = "the driving frames" if about.protocol == "same-identity" else "frames of the sources' own clips"
        notes.append(
            f"*Real frames* are {frames} in the place of what was made; their fid is of one half to the other."
        )
    if any("source" in group.rows for group in results.groups):
        notes.append("*The source itself* is what a model would get that moves nothing.")
    if any("fid" in figures and figures["fid"].count < MIN_FID_PICTURES for figures in every):
        notes.append(
            f"† Too few pictures to compare: fid falls with their number; papers use {MIN_FID_PICTURES} and more."
        )
    if any(name in _BY_FACE and figure.value is not None for figures in every for name, figure in figures.items()):
        notes.append("A number in brackets: so many pictures counted, since a face was found in no others.")
    directions = ((about.protocol, group.driving_domain, group.source_domain) for group in results.groups)
    if any(direction in literature.figures for direction in directions):
        notes += literature.notes
    return [f"* {note}" for note in notes]


def finite(value: float | None, count: int) -> Figure:
    """A figure as JSON can carry it."""
    return Figure(value=value if value is not None and math.isfinite(value) else None, count=count)
