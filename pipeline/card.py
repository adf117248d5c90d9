"""Write what a release says about itself: a dataset card, and its funnel as a picture.

Titles, credits and addresses come from manifests and web pages, so they are hostile until shown otherwise: every
value that reaches the template is made inert Markdown there, and only what this module builds itself is exempt.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.page import FAINT, Page, shortened, text_width_px
from schemas.face import POSE_CONVENTION
from schemas.funnel import Funnel, FunnelStep
from schemas.licences import commercial_use, license_id
from schemas.models import ModelCard
from schemas.release import MANIFEST_FILE, SPLITS, Release, index_file
from schemas.sample import FIELDS, Series
from schemas.uri import redact

OVERVIEW_FILE = "overview.png"
FUNNEL_FILE = "funnel.png"

_MAX_TEXT = 300  # characters; a longer title is no title
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
    funnel: Funnel,
    models: Sequence[ModelCard],
    *,
    seconds: Mapping[str, Mapping[str, float]] | None = None,
    domains: Mapping[str, str] | None = None,
    pretty_name: str = "",
    contact: str = "",
) -> str:
    """Write the README.md of a release: Hugging Face front matter, then Markdown.

    Args:
        release: its counts, sources and files are shown as they are; pictures are linked when among ``files``.
        funnel: what was dropped where.
        models: what is known of the models in ``release.models``; one that is not described is listed as unknown.
        seconds: length by split, then domain; None leaves the column out.
        domains: what each domain means.
        pretty_name: the title; the release's name by default.
        contact: where to ask for removal, as one line of text.

    Returns:
        The text; the same for the same arguments.
    """
    # One line: a line of three dashes inside the title would end the front matter for simple readers.
    title = " ".join(pretty_name.split()) or release.name
    facts = {
        "release": release,
        "title": title,
        "front_matter": Markup(_front_matter(release, title)),  # noqa: S704 - YAML that PyYAML quoted
        "counts": _count_rows(release, seconds or {}),
        "total_short": sum(row["short"] for row in _count_rows(release, {})),
        "num_not_commercial": sum(commercial_use(source.license) is not True for source in release.sources),
        "has_minutes": seconds is not None,
        "domains": {name: (domains or {}).get(name, "") for name in sorted(_domains(release))},
        "funnel": funnel,
        "fields": FIELDS,
        "fields_in_release": _present_fields(release),
        "models": _model_rows(release, models),
        "sources": sorted(release.sources, key=lambda source: source.source_id),
        "licences": sorted(Counter(source.license for source in release.sources).items()),
        "pose_convention": POSE_CONVENTION,
        "overview": OVERVIEW_FILE if OVERVIEW_FILE in release.files else "",
        "funnel_picture": FUNNEL_FILE if FUNNEL_FILE in release.files else "",
        "manifest": MANIFEST_FILE,
        "example": _example(release),
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
    plain = "".join(" " if char.isspace() else char for char in text)
    plain = "".join(char for char in plain if unicodedata.category(char) not in ("Cc", "Cf", "Cs"))
    plain = " ".join(plain.split())
    if len(plain) > _MAX_TEXT:
        plain = plain[: _MAX_TEXT - 1] + "…"
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = _LIST_MARK.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", plain))
    # A zero-width non-joiner is invisible and ends the scanners' match; escapes alone do not stop them.
    return Markup(_AUTOLINK.sub(lambda match: "&#8204;" + match[0], escaped))  # noqa: S704 - escaped above


def code(text: str) -> Markup:
    """Text as a code span that cannot be left: what would end it, or a table cell, is percent-encoded."""
    shown = "".join(
        f"%{ord(char):02X}" if char in "`|" or char.isspace() else char
        for char in text
        if char.isspace() or unicodedata.category(char) not in ("Cc", "Cf", "Cs")
    )
    return Markup(f"`{shown}`" if shown else "–")  # noqa: S704 - escaped above


def _finalize(value: Any) -> Any:
    return value if isinstance(value, Markup) or not isinstance(value, str) else inert(value)


def _number(value: float | None) -> str:
    """Four significant digits, thousands apart; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.4g}"


def _yes_no(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "not known: assume no"}[value]


_TEMPLATES = Environment(
    loader=PackageLoader("pipeline"),
    undefined=StrictUndefined,
    autoescape=True,
    finalize=_finalize,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters.update(code=code, number=_number, yes_no=_yes_no, redact=redact)


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


def _domains(release: Release) -> set[str]:
    return {name for table in (release.counts, release.requested) for by_domain in table.values() for name in by_domain}


def _count_rows(release: Release, seconds: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """One row per split and domain that has clips or was asked for."""
    rows = []
    for split in SPLITS:
        got, wanted = release.counts.get(split, {}), release.requested.get(split, {})
        for domain in sorted(got.keys() | wanted.keys()):
            num_clips, requested = got.get(domain, 0), wanted.get(domain)
            rows.append(
                {
                    "split": split,
                    "domain": domain,
                    "num_clips": num_clips,
                    "minutes": seconds.get(split, {}).get(domain, 0.0) / 60,
                    "requested": requested,
                    "short": max(0, (requested or 0) - num_clips),
                }
            )
    return rows


def _present_fields(release: Release) -> set[str]:
    """Suffixes that every reader will find; optional ones follow from the models that were used."""
    present = {field.suffix for field in FIELDS if not field.optional}
    return present | ({"identity.npy"} if release.with_identity else set())


def _model_rows(release: Release, models: Sequence[ModelCard]) -> list[ModelCard]:
    known = {model.name: model for model in models}
    return [
        known.get(name)
        or ModelCard(
            name=name,
            file="",
            sha256=sha256,
            package="",
            licence="not known",
            commercial_use=None,
            domains=(),
            measured="",
        )
        for name, sha256 in sorted(release.models.items())
    ]


def _example(release: Release) -> dict[str, str]:
    """The files that the reading examples name: they exist in this release."""
    shard = next((shard for shard in release.shards if shard.series == "visual"), None)
    if shard is None:
        return {}
    return {"shard": shard.path, "index": index_file(shard.split, "visual"), "split": shard.split}


def _draw_step(page: Page, step: FunnelStep, y: int) -> None:
    middle = y + _BAR_HEIGHT_PX / 2
    page.text(_LABEL_PX - 12, middle - 7, step.stage, size_px=14, bold=True, align="right")
    page.text(_LABEL_PX - 12, middle + 9, step.unit, size_px=11, color=FAINT, align="right")
    drops = sorted(step.drops, key=lambda drop: (-drop.count, drop.reason))
    parts = [(f"{step.passed:,}", step.passed, _PASSED)]
    parts += [(drop.reason, drop.count, _DROPPED[min(k, len(_DROPPED) - 1)]) for k, drop in enumerate(drops)]
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
    lost = [f"{drop.reason} {drop.count:,}" for drop in drops] + [f"pending {step.pending:,}"] * bool(step.pending)
    page.text(left, middle + 9, shortened(", ".join(lost), _WIDTH_PX - left - 12, 12), size_px=12, color=FAINT)
