"""What an evaluation found, as a record and as a table beside the paper's figures.

Only what decides the numbers is written down, and nothing of when or where: equal inputs give equal bytes.
"""

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from schemas.base import Record
from schemas.release import Split
from training.metrics.table import BY_NAME, MIN_FID_PICTURES, Row
from training.protocols import Protocol

_ROWS: dict[Row, str] = {"made": "made", "source": "the source itself", "truth": "real frames"}
_ARROWS = {"higher": "↑", "lower": "↓"}


class Figure(Record):
    """A metric's value over ``count`` pictures; None where nothing counted, or where it is infinite."""

    value: float | None
    count: NonNegativeInt


class Group(Record):
    """One direction: figures by row, then metric."""

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


class Results(Record):
    """``results.json``."""

    measured: Measured
    groups: tuple[Group, ...]


# Gong et al., AnyTalk: tables 2 and 4 of the paper, 1 to 4 of its supplement; (driving, source) as it calls domains.
_Published = dict[str, dict[str, float]]
PUBLISHED: dict[tuple[Protocol, str, str], _Published] = {
    ("cross-domain", "disney_human", "real"): {
        "AnyTalk": {"fid": 13.039, "csim": 0.848, "ceim": 0.8927},
        "face-vid2vid": {"fid": 15.224, "csim": 0.827, "ceim": 0.8923},
    },
    ("cross-domain", "real", "disney_human"): {
        "AnyTalk": {"fid": 24.144, "csim": 0.830, "ceim": 0.8936},
        "face-vid2vid": {"fid": 24.921, "csim": 0.825, "ceim": 0.8899},
        "DaGAN": {"fid": 23.665, "csim": 0.821, "ceim": 0.8842},
    },
    ("cross-domain", "disney_animal", "real"): {
        "AnyTalk": {"fid": 13.312, "csim": 0.848, "ceim": 0.9065},
        "face-vid2vid": {"fid": 15.977, "csim": 0.804, "ceim": 0.9036},
    },
    ("cross-domain", "real", "disney_animal"): {
        "AnyTalk": {"fid": 44.481, "csim": 0.770, "ceim": 0.9139},
        "face-vid2vid": {"fid": 50.038, "csim": 0.756, "ceim": 0.9131},
    },
    ("cross-identity", "real", "real"): {
        "AnyTalk": {"fid": 13.197, "csim": 0.867, "cpbd": 0.3293},
        "face-vid2vid": {"fid": 13.861, "csim": 0.866, "cpbd": 0.3244},
    },
    ("cross-identity", "disney_human", "disney_human"): {
        "AnyTalk": {"fid": 22.637, "csim": 0.8196, "cpbd": 0.2655},
        "face-vid2vid": {"fid": 23.372, "csim": 0.8133, "cpbd": 0.2572},
    },
    ("same-identity", "real", "real"): {
        "AnyTalk": {"l1": 0.0387, "lpips": 0.157, "cpbd": 0.2650, "akd_l1": 1.362, "aed_openface_sq": 0.124},
        "face-vid2vid": {"l1": 0.0400, "lpips": 0.158, "cpbd": 0.2741, "akd_l1": 1.540, "aed_openface_sq": 0.129},
        "DaGAN": {"l1": 0.0383, "lpips": 0.156, "cpbd": 0.2277, "akd_l1": 1.265, "aed_openface_sq": 0.117},
    },
    ("same-identity", "disney_human", "disney_human"): {
        "AnyTalk": {"l1": 0.0429, "lpips": 0.1776, "cpbd": 0.2663, "akd_l1": 2.597, "aed_openface_sq": 0.205},
        "face-vid2vid": {"l1": 0.0435, "lpips": 0.1819, "cpbd": 0.2626, "akd_l1": 2.701, "aed_openface_sq": 0.218},
    },
}


def table(results: Results) -> str:
    """``results.md``: what was measured, a table per direction, and what its figures are worth."""
    about = results.measured
    lines = [
        f"# {about.protocol}",
        "",
        f"Checkpoint `{about.checkpoint}` ({about.checkpoint_sha256[:12]}), {about.image_px} px, {about.motion} motion; "
        f"release `{about.release}`, split `{about.split}`; pairs drawn with seed {about.seed} "
        f"({about.pairs_sha256[:12]}).",
    ]
    if about.split == "train":
        lines += ["", "**These clips are of the split `train`: a model may have learned them by heart.**"]
    names = [note.name for note in about.metrics]
    for group in results.groups:
        lines += ["", *_group(about, group, names)]
    return "\n".join([*lines, "", *_notes(results), ""])


def _group(about: Measured, group: Group, names: Sequence[str]) -> list[str]:
    published = PUBLISHED.get((about.protocol, group.driving_domain, group.source_domain), {})
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
    for row, told in _ROWS.items():
        figures = group.rows.get(row, {})
        if figures:
            cells = [_cell(name, figures[name], group, row) if name in figures else "–" for name in columns]
            lines.append(f"| {told} | {' | '.join(cells)} |")
    for who, values in published.items():
        cells = [f"{values[name]:g}" if name in values else "–" for name in columns]
        lines.append(f"| *{who}, published* | {' | '.join(cells)} |")
    return lines


def _cell(name: str, figure: Figure, group: Group, row: Row) -> str:
    if figure.value is None:
        return "∞" if name == "psnr" and figure.count else "none"
    told = f"{figure.value:.4g}" if abs(figure.value) >= 1 else f"{figure.value:.4f}"
    if name == "fid":
        return told + ("†" if figure.count < MIN_FID_PICTURES else "")
    whole = group.num_real_frames if row == "truth" else group.num_frames
    return told if figure.count == whole else f"{told} ({figure.count})"


def _notes(results: Results) -> list[str]:
    about = results.measured
    unverified = [note.name for note in about.metrics if not note.verified]
    verified = [f"{note.name} ({note.verified})" for note in about.metrics if note.verified]
    notes = [f"Verified against a reference: {', '.join(verified) or 'none'}."]
    if unverified:
        notes.append(f"**Not verified against a reference**: {', '.join(unverified)}.")
    rows = {row for group in results.groups for row in group.rows}
    if "truth" in rows:
        told = "the driving frames" if about.protocol == "same-identity" else "frames of the sources' own clips"
        notes.append(f"*Real frames* are {told} in the place of what was made; their fid is that of one half to the other.")
    if "source" in rows:
        notes.append("*The source itself* is what a model would get that moves nothing.")
    if any(note.name == "fid" for note in about.metrics):
        counts = [figure.count for group in results.groups for row in group.rows.values() for name, figure in row.items() if name == "fid"]
        if min(counts, default=MIN_FID_PICTURES) < MIN_FID_PICTURES:
            notes.append(f"† Too few pictures to compare: fid falls with their number, and papers use {MIN_FID_PICTURES} and more.")
    notes.append("A number in brackets: so many pictures counted, since a face was found in no others.")
    if any((about.protocol, one.driving_domain, one.source_domain) in PUBLISHED for one in results.groups):
        notes.append(
            "*Published* figures (AnyTalk, tables 2 and supplement 1 to 4) are of other clips at 256 px and larger; "
            "their `ceim` does not say which features it compares, and `aed_openface_sq` needs a network that is not here."
        )
    return [f"* {note}" for note in notes]


def finite(value: float | None, count: int) -> Figure:
    """A figure as JSON can carry it."""
    return Figure(value=value if value is not None and math.isfinite(value) else None, count=count)
