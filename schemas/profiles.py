"""What each profile begins with."""

from schemas.config import EMBEDDED_DOMAINS, BuildConfig, DomainConfig, SpeakerConfig
from schemas.detectors import STANDARD_DETECTORS
from schemas.landmarkers import LandmarkerChoice
from schemas.quality import QualityConfig
from schemas.router import RouterConfig

# Beside the detectors: with labels and angles of people PFLD agrees better than the mesh, and with meshes less well
# (see the accuracy bench).
_STANDARD_LANDMARKERS: dict[str, LandmarkerChoice] = {"real": "pfld", "disney_human": "pfld"}
STANDARD_DOMAINS: dict[str, DomainConfig] = {
    name: domain.model_copy(
        update={
            "detectors": STANDARD_DETECTORS[name].detectors,
            "presence_gate": STANDARD_DETECTORS[name].presence_gate,
            "landmarker": _STANDARD_LANDMARKERS.get(name, domain.landmarker),
            "limits": domain.limits.model_copy(update={"one_speaker": name in SpeakerConfig().domains}),
        }
    )
    for name, domain in EMBEDDED_DOMAINS.items()
}

# Standard reads weights files, and only such that were measured with real weights.
PROFILES: dict[str, BuildConfig] = {
    "embedded": BuildConfig(),
    "standard": BuildConfig(
        profile="standard",
        speaker=SpeakerConfig(),
        quality=QualityConfig(),
        router=RouterConfig(),
        domains=STANDARD_DOMAINS,
    ),
}
