"""Which domain a clip's pictures speak for, set against the one its manifest claims.

The claim is the prior, the evidence moves it, and nothing is renamed: a clip whose pictures speak clearly against its
claim is flagged, so that a person looks. Where no domain is likely enough the answer is *unsure*, because a guess would
only teach people to ignore the flag: that a face is no animal's is plain long before it is plain who drew it.
"""

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from pipeline.clip.meter import Measured, Measurement, Meter, Reading
from pipeline.models.files.model_files import FolderModel
from schemas.clip import ClipPlan
from schemas.config import BuildConfig
from schemas.face import XYXY
from schemas.router import (
    DOUBTFUL_FLAG,
    UNSURE,
    DomainChance,
    DomainEvidence,
    RouterConfig,
    RouterModel,
    RouterScore,
)

if TYPE_CHECKING:  # starts network runtimes
    from pipeline.models.registry import ModelSet
    from pipeline.models.zero_shot import ZeroShot

# The packaged files that the evidence is read with; see ``pipeline.models.domain_evidence``.
EVIDENCE_FILES = ("face_detection_short_range", "face_landmark", "haarcascade_frontalcatface.xml")

_DIGITS = 4
# CLIP is sure of everything. With its say bounded it can tip the scales, and alone it can't flag a clip.
_LEAST_CHANCE = 0.02


@lru_cache(maxsize=1)
def shipped_router() -> RouterModel:
    """The fitted model, ``manifests/router.json``; ``anitalk bench router`` fits it again."""
    return RouterModel.model_validate_json(files("manifests").joinpath("router.json").read_text(encoding="utf-8"))


def domain_prompts(config: BuildConfig) -> dict[str, tuple[str, ...]]:
    """What CLIP compares pictures with, by domain."""
    given = config.router.prompts if config.router else {}
    return {name: given.get(name) or (f"a picture of {domain.description}",) for name, domain in config.domains.items()}


class RouterMeter(Meter[RouterConfig]):
    """Adds the score ``router``, and a flag where the pictures speak against the claimed domain."""

    name = "router"

    def files(self, config: BuildConfig, domain: str) -> tuple[str, ...]:  # noqa: D102
        return EVIDENCE_FILES if self.settings(config, domain) is not None else ()

    def folders(self, config: BuildConfig) -> tuple[FolderModel, ...]:  # noqa: D102
        router = config.router
        return (FolderModel("clip", router.clip, "router.clip"),) if router and router.clip else ()

    def key(self, config: BuildConfig, domain: str) -> list[object] | None:
        """Besides its files, the fitted numbers, and the texts that CLIP reads."""
        del domain
        router = config.router
        if router is None:
            return None
        prompts = domain_prompts(config) if router.clip else {}
        settings = router.model_dump(exclude={"clip", "prompts"})
        return [self.name, settings, shipped_router(), prompts, *self.versions()]

    def load(self, models: "ModelSet", domain: str) -> "ZeroShot | None":
        """CLIP with the texts of all domains, where it is to be asked."""
        del domain
        router = models.config.router
        if router is None or not router.clip:
            return None
        from pipeline.models.zero_shot import ZeroShot

        return models.once(self.name, lambda: ZeroShot(router.clip, domain_prompts(models.config)))

    def start(self, models: "ModelSet", domain: str, plan: ClipPlan, frame_px: int) -> Measurement:  # noqa: D102
        del frame_px
        tap = RouterTap(self.settings_where_on(models.config, domain), domain, plan, self.load(models, domain))

        def finish(measured: Measured) -> Reading:
            del measured
            score = tap.finish()
            return Reading(scores={"router": score}, flags=(DOUBTFUL_FLAG,) if score.doubtful else ())

        return Measurement(tap, finish)


class RouterTap:
    """Feed every output frame of a clip in order, then ``finish``.

    Args:
        config: how many frames to look at, and when to doubt.
        claimed: the manifest's domain.
        plan: the clip's length.
        zero_shot: CLIP, where it is to be asked.
    """

    def __init__(self, config: RouterConfig, claimed: str, plan: ClipPlan, zero_shot: "ZeroShot | None" = None) -> None:
        self._config, self._claimed, self._zero_shot = config, claimed, zero_shot
        # The middles of equal parts: first and last frames are the ones that fades and cuts spoil.
        middles = (np.arange(config.num_frames) + 0.5) * plan.num_frames / config.num_frames
        self._wanted = frozenset(int(middle) for middle in middles)
        self._number = 0
        self._seen: list[DomainEvidence] = []
        self._pictures: list[UInt8[np.ndarray, "S S 3"]] = []

    def add(self, frame: UInt8[np.ndarray, "H W 3"], face: XYXY) -> None:
        """One square RGB frame and the face box on it."""
        if self._number in self._wanted:
            import cv2

            from pipeline.models.domain_evidence import EVIDENCE_PX, frame_evidence

            scale = EVIDENCE_PX / frame.shape[0]
            if scale != 1:
                how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
                frame = np.asarray(cv2.resize(frame, (EVIDENCE_PX, EVIDENCE_PX), interpolation=how), np.uint8)
            box = (face[0] * scale, face[1] * scale, face[2] * scale, face[3] * scale)
            self._seen.append(frame_evidence(frame, box))
            if self._zero_shot is not None:
                self._pictures.append(frame)
        self._number += 1

    def finish(self) -> RouterScore:
        """What the frames speak for."""
        zero_shot = self._zero_shot.chances(self._pictures) if self._zero_shot is not None else None
        return judge(combined(self._seen), self._claimed, self._config, shipped_router(), zero_shot)


def combined(seen: list[DomainEvidence]) -> DomainEvidence:
    """The medians over several frames."""
    table = np.array([[getattr(evidence, name) for name in DomainEvidence.model_fields] for evidence in seen])
    medians = np.round(np.median(table, axis=0), _DIGITS)
    return DomainEvidence(**dict(zip(DomainEvidence.model_fields, medians.tolist(), strict=True)))


def likelihoods(evidence: DomainEvidence, model: RouterModel) -> dict[str, float]:
    """How likely each domain is by the evidence alone, all domains being equally usual; they add up to 1."""
    given = evidence.model_dump()
    unit = {name: (given[name] - model.mean[name]) / model.scale[name] for name in given}
    logits = {
        domain: intercept + sum(model.weights[domain][name] * value for name, value in unit.items())
        for domain, intercept in model.intercepts.items()
    }
    peak = max(logits.values())
    raised = {domain: float(np.exp(logit - peak)) for domain, logit in sorted(logits.items())}
    return {domain: value / sum(raised.values()) for domain, value in raised.items()}


def judge(
    evidence: DomainEvidence,
    claimed: str,
    config: RouterConfig,
    model: RouterModel,
    zero_shot: Mapping[str, float] | None = None,
) -> RouterScore:
    """Weigh the claim against the evidence.

    Args:
        evidence: of a clip.
        claimed: the manifest's domain; one that ``model`` does not know is nothing to disagree with.
        config: trust in the claim, and the least probability.
        model: fitted to films of known domains.
        zero_shot: CLIP's probabilities by domain; they count in the domains that ``model`` knows.
    """
    seen = likelihoods(evidence, model)
    known = claimed in seen and len(seen) > 1
    for domain in seen:
        if known:
            seen[domain] *= config.trust if domain == claimed else (1 - config.trust) / (len(seen) - 1)
        if zero_shot is not None:
            seen[domain] *= max(zero_shot.get(domain, 0.0), _LEAST_CHANCE)
    total = sum(seen.values())
    best = max(seen, key=lambda domain: (seen[domain], domain))
    probability = round(seen[best] / total, _DIGITS)
    left = round(seen[claimed] / total, _DIGITS) if known else None
    asked = None
    if zero_shot is not None:
        asked = tuple(DomainChance(domain=name, probability=round(p, _DIGITS)) for name, p in sorted(zero_shot.items()))
    return RouterScore(
        proposed=best if probability >= config.min_probability else UNSURE,
        probability=probability,
        claim=left,
        doubtful=left is not None and left <= round(1 - config.min_probability, _DIGITS),
        evidence=evidence,
        zero_shot=asked,
    )
