"""Read a build configuration: the profile's defaults, then a file, then single settings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from pipeline.models.files.weights import is_path
from schemas.base import Record
from schemas.config import BuildConfig, DomainConfig, EngineConfig, WeightsConfig
from schemas.errors import UsageError
from schemas.landmarkers import UserLandmarker
from schemas.layers import LayerError, layered, merged, problems_of
from schemas.profiles import PROFILES
from schemas.uri import local_path, uri_scheme

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Settings:
    """What is built, and beside it what changes no result: who does the work, and where weights lie."""

    build: BuildConfig
    engine: EngineConfig
    weights: WeightsConfig


def read_settings(path: Path | None, overrides: Iterable[str] = (), profile: str = "embedded") -> Settings:
    """All settings: the profile's defaults, then a file, then single ones.

    Args:
        path: a YAML file that names only what differs from the defaults.
        overrides: ``key.inside=value`` settings, applied last; values are read as YAML.
        profile: whose defaults to begin with.

    Raises:
        UsageError: naming every setting that is unknown or has a value that is not allowed.
    """
    return _settings({"profile": profile}, WeightsConfig(), path, overrides)


def overlaid(
    config: BuildConfig, weights: WeightsConfig, path: Path | None = None, overrides: Iterable[str] = ()
) -> Settings:
    """A build's settings with some replaced, by file and by single settings as in :func:`read_settings`."""
    # Over the plainest defaults: what a build had turned off is not in its JSON, and must not come back by its profile.
    return _settings(config.model_dump(mode="json"), weights, path, overrides, BuildConfig())


def _settings(
    given: Mapping[str, Any],
    weights: WeightsConfig,
    path: Path | None,
    overrides: Iterable[str],
    defaults: BuildConfig | None = None,
) -> Settings:
    given = merged(given, {"weights": weights.model_dump(mode="json")})
    try:
        given = layered(given, path, overrides, example="domains.real.limits.min_speech_ratio=0.4")
    except LayerError as error:
        raise UsageError(str(error)) from error
    where = str(path) if path else "--set"
    engine, weights_given = given.pop("engine", {}), given.pop("weights")
    return Settings(
        _with_absolute_paths(checked(given, where, defaults)),
        _validated(EngineConfig, engine, where, "engine."),
        _with_absolute_folders(_validated(WeightsConfig, weights_given, where, "weights.")),
    )


def _with_absolute_folders(weights: WeightsConfig) -> WeightsConfig:
    """Folders from the root on: workers run in other folders, and later commands may too."""
    return WeightsConfig(
        dir=absolute_location(weights.dir) if weights.dir else "",
        mirror=absolute_location(weights.mirror) if weights.mirror else "",
    )


def _with_absolute_paths(config: BuildConfig) -> BuildConfig:
    """Model files of the user's own by their paths from the root on, for the same reason."""
    domains = {name: _domain_with_absolute_paths(domain) for name, domain in config.domains.items()}
    changes: dict[str, Any] = {"domains": domains}
    for name in ("speaker", "expression", "identity"):
        stage = getattr(config, name)
        if stage is not None and is_path(stage.weights):
            changes[name] = stage.model_copy(update={"weights": absolute_location(stage.weights)})
    if config.router and config.router.clip:
        changes["router"] = config.router.model_copy(update={"clip": absolute_location(config.router.clip)})
    return config.model_copy(update=changes)


def _domain_with_absolute_paths(domain: DomainConfig) -> DomainConfig:
    detectors = tuple(
        detector.model_copy(
            update={"onnx": detector.onnx.model_copy(update={"path": absolute_location(detector.onnx.path)})}
        )
        if detector.onnx
        else detector
        for detector in domain.detectors
    )
    points = domain.landmarker
    if isinstance(points, UserLandmarker):
        points = points.model_copy(update={"path": absolute_location(points.path)})
    return domain.model_copy(update={"detectors": detectors, "landmarker": points})


def absolute_location(given: str) -> str:
    """A URI as it is, a folder from the root on.

    Raises:
        UsageError: for a file URI that names another host.
    """
    try:
        return str(local_path(given).expanduser().absolute()) if uri_scheme(given) == "file" else given
    except ValueError as error:
        raise UsageError(str(error)) from error


def checked(given: Mapping[str, Any], where: str, defaults: BuildConfig | None = None) -> BuildConfig:
    """Defaults, by default those of the profile, with ``given`` merged in, validated as a whole.

    Raises:
        UsageError: with one line per problem.
    """
    base = defaults or PROFILES.get(str(given.get("profile")), BuildConfig())
    return _validated(BuildConfig, merged(base.model_dump(mode="json"), given), where)


def _validated(kind: type[R], given: Any, where: str, prefix: str = "") -> R:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise UsageError("\n".join(problems_of(error, given, where, prefix))) from error
