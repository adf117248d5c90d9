"""Write what a release says about itself: a dataset card, and its funnel as a picture.

Titles, credits and addresses come from manifests and web pages, so they are hostile until shown otherwise: every
value that reaches the template is made inert Markdown there, and only what this module builds itself is exempt.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

import yaml
from markupsafe import Markup

from pipeline.card.claims import (
    about_people,
    count_rows,
    domain_meanings,
    is_visible,
    known_limits,
    licence_rows,
    model_rows,
    one_line,
    proposed_domains,
    reading_examples,
)
from pipeline.card.environment import card_templates
from pipeline.draw.page import FAINT, Page, shortened, text_width_px
from schemas.face import POSE_CONVENTION
from schemas.funnel import Funnel, FunnelStep
from schemas.licences import license_id
from schemas.release import (
    FUNNEL_FILE,
    OVERVIEW_FILE,
    SPLITS,
    WEB_CARD_FILE,
    About,
    ManifestRow,
    Release,
)
from schemas.sample import FIELDS, Series

_MARKUP = re.compile(r"([\\`*_{}\[\]()#|~$!])")
_LIST_MARK = re.compile(r"^(\d*)([-+.])(?= |$)")
# What would become a link without any markup: GitHub's and Hugging Face's autolinks.
_AUTOLINK = re.compile(r"(?i)(?<=www)\.|(?<=https)(?=:)|(?<=http)(?=:)|(?<=ftp)(?=:)|(?=@)")
# The licences that Hugging Face lists under their SPDX names; it takes anything else as "other".
_HUB_LICENCES = frozenset((
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "unlicense", "etalab-2.0", "cc0-1.0",
    "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
    "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0",
))  # fmt: skip
_HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}

_WIDTH_PX, _LABEL_PX, _BAR_PX, _ROW_PX, _BAR_HEIGHT_PX = 1280, 190, 560, 46, 26
_PASSED, _PENDING = (72, 133, 148), (214, 219, 224)
_DROPPED = ((217, 108, 74), (229, 148, 103), (238, 180, 138), (244, 205, 174), (248, 224, 204))


def write_card(
    release: Release,
    about: About,
    rows: Sequence[ManifestRow],
    *,
    pictures: Collection[str] = (),
    pretty_name: str = "",
    contact: str = "",
) -> str:
    """Write the README.md of a release: Hugging Face front matter, then Markdown.

    Args:
        release: its counts and sources are shown as they are.
        about: what is told beside; a model that it does not describe is listed as unknown.
        rows: all clips, for their lengths.
        pictures: paths of the pictures that lie in the release; others are not linked.
        pretty_name: the title; the release's name by default.
        contact: where to ask for removal, as one line of text.

    Returns:
        The text; the same for the same arguments.
    """
    # One line: a line of three dashes inside the title would end the front matter for simple readers.
    title = " ".join(pretty_name.split()) or release.name
    counts, licences, domains = count_rows(release, rows), licence_rows(release, rows), domain_meanings(release, about)
    facts = {
        "release": release,
        "about": about,
        "title": title,
        "front_matter": Markup(_front_matter(release, title)),  # noqa: S704 - YAML that PyYAML quoted
        "counts": counts,
        "total_short": sum(row.short for row in counts),
        "num_not_commercial": sum(row.num_sources for row in licences if row.commercial_use is not True),
        "domains": domains,
        "proposed": proposed_domains(rows),
        "fields": FIELDS,
        "models": model_rows(release, about.models),
        "sources": sorted(release.sources, key=lambda source: source.source_id),
        "licences": licences,
        "pose_convention": POSE_CONVENTION,
        "overview": OVERVIEW_FILE if OVERVIEW_FILE in pictures else "",
        "funnel_picture": FUNNEL_FILE if FUNNEL_FILE in pictures else "",
        "web_card": WEB_CARD_FILE,
        "limits": known_limits(domains),
        "people": about_people(domains),
        "examples": {intro: Markup(text) for intro, text in reading_examples(release).items()},  # noqa: S704 - ours
        "contact": contact,
    }
    return _TEMPLATES.get_template("card.md.j2").render(facts)


def draw_funnel(funnel: Funnel) -> bytes:
    """Draw each step as one bar: the part that passed, then the reasons of the others, largest first.

    Every bar is all that entered its step, since units differ between steps. Returns PNG.
    """
    page = Page(_WIDTH_PX, 8 + _ROW_PX * max(1, len(funnel.steps)))
    for position, step in enumerate(funnel.steps):
        _draw_step(page, step, 12 + position * _ROW_PX)
    return page.png()


def inert(text: str) -> Markup:
    """Text as one line of Markdown that shows itself and does nothing: no markup, HTML, link, table cell or line."""
    plain = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = _LIST_MARK.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", plain))
    # A zero-width non-joiner is invisible and ends the scanners' match; escapes alone do not stop them.
    return Markup(_AUTOLINK.sub(lambda match: "&#8204;" + match[0], escaped))  # noqa: S704 - escaped above


def code(text: str) -> Markup:
    """Text as a code span that cannot be left: what would end it, or a table cell, is percent-encoded."""
    shown = "".join(
        f"%{ord(char):02X}" if char in "`|" or char.isspace() else char
        for char in text
        if char.isspace() or is_visible(char)
    )
    return Markup(f"`{shown}`" if shown else "–")  # noqa: S704 - escaped above


_TEMPLATES = card_templates(inert)
_TEMPLATES.filters.update(code=code)


def _front_matter(release: Release, title: str) -> str:
    named = {license_id(source.license) or "" for source in release.sources}
    hub = sorted({spdx.lower() if spdx.lower() in _HUB_LICENCES else "other" for spdx in named})
    matter = {
        "pretty_name": title,
        "license": hub or ["other"],
        "task_categories": ["image-to-video"],
        "tags": ["talking-head", "face-reenactment", "facial-landmarks", "head-pose", "webdataset", "video", "anitalk"],
        "size_categories": [_size_category(release.num_clips)],
        "configs": [_hub_config(release, series) for series in ("visual", "speech")],
    }
    return yaml.safe_dump(matter, sort_keys=False, allow_unicode=True, width=10**6).rstrip()


def _size_category(num_clips: int) -> str:
    bounds = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for bound, name in bounds if num_clips < bound), "1M<n<10M")


def _hub_config(release: Release, series: Series) -> dict[str, Any]:
    splits = {shard.split for shard in release.shards if shard.series == series}
    files = [
        {"split": _HUB_SPLITS[split], "path": f"{split}/*/*-{series}-*.tar"} for split in SPLITS if split in splits
    ]
    return {"config_name": series, "default": series == "visual", "data_files": files}


def _draw_step(page: Page, step: FunnelStep, y: int) -> None:
    middle = y + _BAR_HEIGHT_PX / 2
    page.text(_LABEL_PX - 12, middle - 7, step.stage, size_px=14, bold=True, align="right")
    page.text(_LABEL_PX - 12, middle + 9, step.unit, size_px=11, color=FAINT, align="right")
    drops = sorted(step.drops, key=lambda drop: (-drop.count, drop.label))
    parts = [(f"{step.passed:,}", step.passed, _PASSED)]
    parts += [(drop.label, drop.count, _DROPPED[min(k, len(_DROPPED) - 1)]) for k, drop in enumerate(drops)]
    parts.append(("pending", step.pending, _PENDING))
    done = 0
    for label, count, rgb in parts:
        left, right = (round(_LABEL_PX + _BAR_PX * n / max(1, step.entered)) for n in (done, done + count))
        done += count
        if right > left:
            page.fill(left, y, right - left - (right - left > 2), _BAR_HEIGHT_PX, rgb)
        if right - left > text_width_px(label, 12) + 10:
            color = "white" if rgb == _PASSED else "#3b1d10"
            page.text((left + right) / 2, middle, label, size_px=12, color=color, align="center")
    left = _LABEL_PX + _BAR_PX + 16
    page.text(left, middle - 8, f"{step.passed:,} of {step.entered:,} passed", size_px=13)
    lost = [f"{drop.label} {drop.count:,}" for drop in drops] + [f"pending {step.pending:,}"] * bool(step.pending)
    if step.overruled:
        lost.append(f"{step.overruled:,} kept by a reviewer against the filters")
    page.text(left, middle + 9, shortened(", ".join(lost), _WIDTH_PX - left - 12, 12), size_px=12, color=FAINT)
