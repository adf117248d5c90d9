"""Write the card of a release as one HTML page that needs nothing else: no server, no script, no file beside it.

The page travels by mail and object stores and is opened from disks, where whatever it would load is missing or
tells a stranger who reads it. Titles, credits and addresses come from manifests and web pages: they are escaped by
the template, are never made links, and the page forbids itself scripts and foreign addresses besides.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from pipeline.card.claims import (
    about_people,
    count_rows,
    domain_meanings,
    known_limits,
    licence_rows,
    model_rows,
    one_line,
    present_fields,
    proposed_domains,
    reading_examples,
)
from pipeline.card.environment import card_templates
from pipeline.card.histogram import draw_histogram, histograms
from schemas.face import POSE_CONVENTION
from schemas.funnel import FunnelStep
from schemas.release import CARD_FILE, About, ManifestRow, Release, sheet_file
from schemas.sample import FIELDS

MAX_ROWS = 400  # of a table; the other card has all of them. Rows, lines and pictures together bound the page
MAX_PICTURE_BYTES = 1_800_000  # of all sheets in the page, which grow by a third as text


@dataclass(frozen=True, slots=True)
class DomainPart:
    """What the page shows of one domain."""

    name: str
    meaning: str
    num_clips: int
    minutes: float
    num_sources: int
    sheet: Markup
    sheet_path: str
    charts: list[tuple[str, Markup, str]]


def write_web_card(
    release: Release, about: About, rows: Sequence[ManifestRow], *, pictures: Mapping[str, bytes] | None = None
) -> str:
    """Write the card.html of a release.

    Args:
        release: its counts and sources are shown as they are; its ``files`` are not looked at.
        about: what is told beside; a model that it does not describe is listed as unknown.
        rows: all clips, in any order: their scores make the distributions.
        pictures: the contact sheets by path; a domain without one is described without.

    Returns:
        The page; the same for the same arguments.
    """
    counts, domains, sources = count_rows(release, rows), domain_meanings(release, about), _by_id(release)
    licences = licence_rows(release, rows)
    facts = {
        "release": release,
        "about": about,
        "counts": counts,
        "proposed": proposed_domains(rows),
        "total_short": sum(row.short for row in counts),
        "domains": list(_domain_parts(domains, about, rows, pictures or {})),
        "steps": [(step, _funnel_parts(step)) for step in about.funnel.steps],
        "licences": licences[:MAX_ROWS],
        "num_not_commercial": sum(row.num_sources for row in licences if row.commercial_use is not True),
        "models": model_rows(release, about.models),
        "sources": sources[:MAX_ROWS],
        "lost": about.coverage.lost[:MAX_ROWS] if about.coverage else (),
        "max_rows": MAX_ROWS,
        "text_card": CARD_FILE,
        # Our own sentences, which may be longer than a title.
        "limits": [escape(text) for text in known_limits(domains)],
        "people": escape(about_people(domains)),
        "fields": [field for field in FIELDS if not field.optional or field.suffix in present_fields(release)],
        "pose_convention": POSE_CONVENTION,
        "examples": {intro: escape(code) for intro, code in reading_examples(release).items()},
    }
    return _TEMPLATES.get_template("card.html.j2").render(facts)


def _by_id(release: Release) -> list[Any]:
    return sorted(release.sources, key=lambda source: source.source_id)


def _domain_parts(
    domains: Mapping[str, str], about: About, rows: Sequence[ManifestRow], pictures: Mapping[str, bytes]
) -> Iterator[DomainPart]:
    drawn = histograms(rows, about.limits, domains)
    room = MAX_PICTURE_BYTES
    for name, meaning in domains.items():
        mine = sorted((row for row in rows if row.domain == name), key=lambda row: row.clip_id)
        if not mine:
            continue
        data = pictures.get(sheet_file(name), b"")
        room -= len(data)
        yield DomainPart(
            name=name,
            meaning=meaning,
            num_clips=len(mine),
            minutes=sum(row.duration_s for row in mine) / 60,
            num_sources=len({row.source_id for row in mine}),
            sheet=_data_uri(data) if data and room >= 0 else Markup(),
            sheet_path=sheet_file(name) if data else "",
            charts=[
                (histogram.measure.title, draw_histogram(histogram), histogram.summary) for histogram in drawn[name]
            ],
        )


def _data_uri(jpeg: bytes) -> Markup:
    return Markup("data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii"))  # noqa: S704 - base64


def _funnel_parts(step: FunnelStep) -> list[tuple[str, str, int, float, float]]:
    """The parts of a step's bar: class, name, count, and where it begins and how long it is, in percent."""
    drops = sorted(step.drops, key=lambda drop: (-drop.count, drop.label))
    parts = [("passed", "passed", step.passed)]
    parts += [(f"drop{min(rank, 4)}", drop.label, drop.count) for rank, drop in enumerate(drops)]
    parts.append(("pending", "no outcome yet", step.pending))
    begins, placed = 0, []
    for kind, name, count in parts:
        if count:
            placed.append((kind, name, count, 100 * begins / step.entered, 100 * count / step.entered))
        begins += count
    return placed


_TEMPLATES = card_templates(one_line)
