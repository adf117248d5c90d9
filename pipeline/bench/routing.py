"""Fit the domain router to media of known domains, and see how it does on films that it was not fitted to.

A linear model of seven numbers: with some thirty families of films anything richer learns the films. Every domain
weighs the same, and in it every family, however many frames it has.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float64, Int64
from scipy.optimize import minimize

from pipeline.analyse.faces import without_doubles
from pipeline.bench.labelled import FILM_DOMAINS, labelled_frames
from pipeline.clip.router import combined, judge, likelihoods
from pipeline.demo.films import DEMO_FILMS
from pipeline.fetch.probe import probe
from pipeline.media.decode import iter_frames
from pipeline.models.detector_table import build_detectors
from pipeline.models.detectors import BgrImage, Detector
from pipeline.models.domain_evidence import EVIDENCE_PX, frame_evidence
from pipeline.models.registry import ModelSet
from schemas.accuracy import RouterRow
from schemas.config import CropConfig, ProbeConfig
from schemas.detectors import STANDARD_DETECTORS, DetectorChoice
from schemas.errors import UsageError
from schemas.face import XYXY
from schemas.router import DomainEvidence, RouterConfig, RouterModel

FRAMES_PER_TAKE = 5
MIN_FACE_PX = 40
# Of the squared weights: between a tenth and ten times of it the held-out likelihood changes little.
PENALTY = 0.01
_SIDE_PX = 1920
_STRIDE = 12  # frames between those looked at in films without labels, as the labels have it
_FILMS_WITHOUT_LABELS = {"bbaf2n.mpg": "real", "carphone_pristine.mp4": "real"}
_STILLS = {
    "t1.jpg": "real",
    "aflw-test-grid3x3.jpg": "real",
    "aflw-test.jpg": "real",
    "einstein.jpg": "real",
    "takeo.ppm": "real",
    "twogirls.jpg": "real",
    "sadtalker_art_0.png": "disney_human",
    "sadtalker_art_10.png": "disney_human",
    "hysts_input.jpg": "disney_human",
    "cat1.jpg": "disney_animal",
    "cat3.jpg": "disney_animal",
    "liveportrait_s30.jpg": "disney_animal",
    "liveportrait_s31.jpg": "disney_animal",
}
_OTHER_DETECTORS = {"hysts_input.jpg": (DetectorChoice(model="anime_cascade", min_score=0.5),)}
# What shares people or makers is left out together.
_FAMILIES = {
    "id2_vcd_swwp2s.mpg": "GRID",
    "bbaf2n.mpg": "GRID",
    "aflw-test.jpg": "AFLW",
    "aflw-test-grid3x3.jpg": "AFLW",
    "liveportrait_s30.jpg": "LivePortrait",
    "liveportrait_s31.jpg": "LivePortrait",
}
_DEMO_JPEG_QUALITY = 90  # rendered frames have never been through an encoder, and all other media have


@dataclass(frozen=True, slots=True)
class RouterTake:
    """Up to five frames of one face in one film, as the router sees a clip."""

    family: str
    domain: str
    evidence: DomainEvidence


def gather(assets: Path, models: ModelSet) -> list[RouterTake]:
    """All takes: labelled films, other films and stills of the assets with detected faces, and the demo's actors.

    Raises:
        UsageError: when media, labels or weights are missing.
    """
    faces: list[tuple[str, str, DomainEvidence]] = []
    for film, domain in FILM_DOMAINS.items():
        for frame in labelled_frames(assets, film, _SIDE_PX):
            if frame.box is not None and not frame.ambiguous:
                faces += _seen(film, domain, frame.image, frame.box)
    for name, domain in _FILMS_WITHOUT_LABELS.items():
        detectors = build_detectors(STANDARD_DETECTORS[domain].detectors, models.file)
        for image in _every(assets / "video" / name, _STRIDE):
            for box in _faces_of(image, detectors)[:1]:
                faces += _seen(name, domain, image, box)
    for name, domain in _STILLS.items():
        choices = _OTHER_DETECTORS.get(name, STANDARD_DETECTORS[domain].detectors)
        image = _still(assets / "stills" / name)
        for box in _faces_of(image, build_detectors(choices, models.file)):
            faces += _seen(name, domain, image, box)
    takes = [*_takes(faces), *_demo_takes()]
    return sorted(takes, key=lambda take: (take.domain, take.family))


def fit(takes: Sequence[RouterTake], domains: Sequence[str], note: str = "") -> RouterModel:
    """A multinomial logistic regression with squared weights penalised.

    Args:
        takes: at least one.
        domains: to tell apart; those without a take get what is left.
        note: kept with the numbers.
    """
    names = list(DomainEvidence.model_fields)
    table = np.array([[getattr(take.evidence, name) for name in names] for take in takes])
    share = _shares(takes)
    mean = share @ table
    scale = np.maximum(np.sqrt(share @ np.square(table - mean)), 1e-6)
    classes = np.array([domains.index(take.domain) for take in takes])
    weights, intercepts = _regress((table - mean) / scale, classes, share, len(domains))
    return RouterModel(
        note=note,
        mean=_named(names, mean),
        scale=_named(names, scale),
        intercepts=_named(domains, intercepts),
        weights={domain: _named(names, row) for domain, row in zip(domains, weights, strict=True)},
    )


def router_rows(takes: Sequence[RouterTake], domains: Sequence[str], config: RouterConfig) -> list[RouterRow]:
    """Every family judged by a model that was fitted to all others."""
    rows = []
    for family in sorted({take.family for take in takes}):
        own = [take for take in takes if take.family == family]
        model = fit([take for take in takes if take.family != family], domains)
        for domain in sorted({take.domain for take in own}):
            seen = [take.evidence for take in own if take.domain == domain]
            chances = [likelihoods(evidence, model) for evidence in seen]
            likeliest = Counter(max(chance, key=lambda name: chance[name]) for chance in chances)
            flagged = {
                claimed: sum(judge(evidence, claimed, config, model).doubtful for evidence in seen)
                for claimed in domains
            }
            rows.append(
                RouterRow(
                    domain=domain,
                    family=family,
                    num_takes=len(seen),
                    likeliest={name: likeliest[name] for name in domains},
                    flagged=flagged,
                )
            )
    return sorted(rows, key=lambda row: (domains.index(row.domain), row.family))


def to_markdown(rows: Sequence[RouterRow], domains: Sequence[str], config: RouterConfig) -> str:
    """The page: two tables over families, and every family."""
    sums = {domain: [row for row in rows if row.domain == domain] for domain in domains}
    alarms = sum(row.flagged[row.domain] for row in rows)
    total = sum(row.num_takes for row in rows)
    preface = (
        f"Made by `anitalk bench router`: {total} takes of up to {FRAMES_PER_TAKE} frames from {len(rows)} families of "
        "films and stills, each judged by a model fitted to the others. Means over families, since frames of one film "
        "resemble one another. The evidence, its penalty and the limits were chosen on these same media, and two "
        "families stand for all meshes: expect less elsewhere."
    )
    flags = (
        "Share of takes that are flagged, by what they are and what a manifest claims. In the diagonal a flag is a "
        f"false alarm: {alarms} of {total} takes."
    )
    parts = [
        "# The domain router on films that it was not fitted to",
        preface,
        f"## Flags (trust {config.trust}, least probability {config.min_probability})",
        flags,
        _table("is \\ claimed", domains, sums, lambda row, name: row.flagged[name]),
        "## Evidence alone",
        "Share of takes by the likeliest domain, without a claim and without a least probability.",
        _table("is \\ likeliest", domains, sums, lambda row, name: row.likeliest[name]),
        "## Families",
        "\n".join(
            [
                f"| domain | family | takes | {' | '.join(f'likeliest {name}' for name in domains)} | false alarms |",
                "|---|---|---:|" + "---:|" * (len(domains) + 1),
                *(_family_line(row, domains) for row in rows),
            ]
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _family_line(row: RouterRow, domains: Sequence[str]) -> str:
    counts = " | ".join(str(row.likeliest[name]) for name in domains)
    return f"| {row.domain} | {row.family} | {row.num_takes} | {counts} | {row.flagged[row.domain]} |"


def _table(
    corner: str,
    domains: Sequence[str],
    rows: Mapping[str, Sequence[RouterRow]],
    count: Callable[[RouterRow, str], int],
) -> str:
    lines = [f"| {corner} | {' | '.join(domains)} |", "|---|" + "---:|" * len(domains)]
    for domain, own in rows.items():
        shares = [np.mean([count(row, name) / row.num_takes for row in own]) if own else 0.0 for name in domains]
        lines.append(f"| {domain} | {' | '.join(f'{share:.2f}' for share in shares)} |")
    return "\n".join(lines)


# ---- fitting -----------------------------------------------------------------------------------------------------


def _shares(takes: Sequence[RouterTake]) -> Float64[np.ndarray, " N"]:
    """The weight of every take: domains alike, in them families, in those takes. They add up to 1."""
    sizes = Counter((take.domain, take.family) for take in takes)
    families = Counter(domain for domain, _ in sizes)
    shares = [1 / (len(families) * families[take.domain] * sizes[take.domain, take.family]) for take in takes]
    return np.array(shares)


def _regress(
    table: Float64[np.ndarray, "N E"], classes: Int64[np.ndarray, " N"], share: Float64[np.ndarray, " N"], num: int
) -> tuple[Float64[np.ndarray, "D E"], Float64[np.ndarray, " D"]]:
    """Weights and intercepts of the least weighted cross entropy + penalty; convex, so there is one answer."""
    width = table.shape[1]
    targets = np.eye(num)[classes]

    def loss(flat: Float64[np.ndarray, " K"]) -> tuple[float, Float64[np.ndarray, " K"]]:
        weights, intercepts = flat[: num * width].reshape(num, width), flat[num * width :]
        logits = table @ weights.T + intercepts
        logits -= logits.max(axis=1, keepdims=True)
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        error = (np.exp(logs) - targets) * share[:, None]
        slope = error.T @ table + PENALTY * weights
        value = -(share * (logs * targets).sum(axis=1)).sum() + PENALTY * np.square(weights).sum() / 2
        return float(value), np.concatenate([slope.ravel(), error.sum(axis=0)])

    optimum = minimize(loss, np.zeros(num * (width + 1)), jac=True, method="L-BFGS-B", options={"gtol": 1e-9}).x
    return optimum[: num * width].reshape(num, width), optimum[num * width :]


def _named(names: Iterable[str], values: Float64[np.ndarray, " N"]) -> dict[str, float]:
    """Four decimals are far more than the media can tell, and can be read."""
    return {name: round(float(value), 4) for name, value in zip(names, values, strict=True)}


# ---- media -------------------------------------------------------------------------------------------------------


def _seen(film: str, domain: str, image: BgrImage, box: XYXY) -> list[tuple[str, str, DomainEvidence]]:
    """The evidence of one face, unless it is smaller than builds track."""
    if box[3] - box[1] < MIN_FACE_PX:
        return []
    crop, face = _crop(image, box)
    return [(film, domain, frame_evidence(crop, face))]


def _crop(image: BgrImage, box: XYXY) -> tuple[np.ndarray, XYXY]:
    """The square that a build would cut for one face, RGB at evidence size, and the face on it."""
    side = max(2, round(CropConfig().scale * (box[3] - box[1])))
    left, top = (round((box[k] + box[k + 2]) / 2 - side / 2) for k in (0, 1))
    height, width = image.shape[:2]
    canvas = np.zeros((side, side, 3), np.uint8)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    canvas[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1, ::-1]
    how = cv2.INTER_AREA if side > EVIDENCE_PX else cv2.INTER_CUBIC
    crop = np.asarray(cv2.resize(canvas, (EVIDENCE_PX, EVIDENCE_PX), interpolation=how), np.uint8)
    factor = EVIDENCE_PX / side
    edges = ((edge - origin) * factor for edge, origin in zip(box, (left, top, left, top), strict=True))
    x0, y0, x1, y1 = edges
    return crop, (float(x0), float(y0), float(x1), float(y1))


def _takes(faces: Iterable[tuple[str, str, DomainEvidence]]) -> Iterator[RouterTake]:
    """Five neighbours of a film make a take; the faces of a still are a take each."""
    for (film, domain), group in groupby(faces, key=lambda face: face[:2]):
        evidence = [sight for _, _, sight in group]
        size = 1 if film in _STILLS else FRAMES_PER_TAKE
        for start in range(0, len(evidence), size):
            part = evidence[start : start + size]
            if len(part) == size or start == 0:
                yield RouterTake(_FAMILIES.get(film, film), domain, combined(part))


def _demo_takes() -> Iterator[RouterTake]:
    """Every shot of the demo with one person in it, at five times."""
    for film in DEMO_FILMS:
        for shot in film.shots:
            seen = []
            for number in range(FRAMES_PER_TAKE):
                time_s = shot.duration_s * (number + 0.5) / FRAMES_PER_TAKE
                view = shot.take.view(time_s, shot.duration_s, film.size, number % 3 * 0.4)
                if len(view.faces) == 1:
                    coded = cv2.imencode(".jpg", view.image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, _DEMO_JPEG_QUALITY))
                    image = np.asarray(cv2.imdecode(coded[1], cv2.IMREAD_COLOR), np.uint8)
                    seen += _seen(film.id, film.domain, image, view.faces[0].box)
            if seen:
                yield RouterTake(f"demo {film.domain}", film.domain, combined([evidence for _, _, evidence in seen]))


def _faces_of(image: BgrImage, detectors: Sequence[Detector]) -> list[XYXY]:
    """All faces, the largest first."""
    faces = [
        face.box
        for by_detector in without_doubles([detector.detect(image) for detector in detectors])
        for face in by_detector
    ]
    return sorted(faces, key=lambda box: box[1] - box[3])


def _every(path: Path, stride: int) -> Iterator[BgrImage]:
    if not path.is_file():
        raise UsageError(f"the film {path} is missing: check the folder of assets")
    video = probe(path, "routing", "0" * 64, ProbeConfig())
    for number, frame in enumerate(iter_frames(path, video)):
        if number % stride == 0:
            yield frame.to_array((video.width_px, video.height_px), "bgr24")


def _still(path: Path) -> BgrImage:
    image = cv2.imread(str(path)) if path.is_file() else None
    if image is None:
        raise UsageError(f"the picture {path} is missing or damaged: check the folder of assets")
    return np.asarray(image, np.uint8)
