"""Which domain a clip's pictures speak for, set against the one its manifest claims.

The claim is the prior, the evidence moves it, and nothing is renamed: a clip whose pictures speak clearly against its
claim is flagged, so that a person looks. Where no domain is likely enough the answer is *unsure*, because a guess would
only teach people to ignore the flag: that a face is no animal's is plain long before it is plain who drew it.
"""

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import UInt8

from pipeline.models.domain_evidence import EVIDENCE_PX, frame_evidence
from pipeline.models.files.router_model import shipped_router
from pipeline.models.zero_shot import ZeroShot
from schemas.clip import ClipPlan
from schemas.face import XYXY
from schemas.router import UNSURE, DomainChance, DomainEvidence, RouterConfig, RouterModel, RouterScore

_DIGITS = 4
# CLIP is sure of everything. With its say bounded it can tip the scales, and alone it can't flag a clip.
_LEAST_CHANCE = 0.02


class RouterMeter:
    """Feed every output frame of a clip in order, then ``finish``.

    Args:
        config: how many frames to look at, and when to doubt.
        claimed: the manifest's domain.
        plan: the clip's length.
        zero_shot: CLIP, where it is to be asked.
    """

    def __init__(self, config: RouterConfig, claimed: str, plan: ClipPlan, zero_shot: ZeroShot | None = None) -> None:
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
    table = np.array([[getattr(one, name) for name in DomainEvidence.model_fields] for one in seen])
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
