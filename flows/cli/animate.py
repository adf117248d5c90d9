"""``anitalk animate``: pictures that move as films do.

Faces are found and cut by the builder's own detection, which needs its packages; with ``--no-crop`` the inputs are
squares already and the ``train`` extra is enough. Whatever is heavy is imported by the command.
"""

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anitalk import PACKAGES
from flows.cli.options import DeviceOption, ProfileOption
from schemas.errors import CheckpointError, UsageError
from schemas.extras import install_command
from schemas.progress import Report

if TYPE_CHECKING:
    import torch

    from flows.framing import Framer
    from training.engine.animator import AnimateConfig, Animator
    from training.film.film import Film, Picture
    from training.recipes.base import Driver


@dataclass(frozen=True, slots=True)
class _Job:
    """One film to make."""

    source: Path
    driving: Path
    output: Path


@dataclass(frozen=True, slots=True)
class _Look:
    """How inputs are cropped, and what is shown."""

    crop: bool
    source_domain: str
    driving_domain: str
    profile: str
    settings: tuple[str, ...]
    side_by_side: bool


def animate(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint, or folder of a run: its best one.")],
    source: Annotated[list[Path], typer.Option(help="Image of a face; repeatable.")],
    driving: Annotated[list[Path], typer.Option(help="Film of a face that moves; repeatable.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="MP4 file; of several pairs a folder.")],
    relative: Annotated[bool, typer.Option("--relative", help="Add the driving head's change to the source.")] = False,
    multiplier: Annotated[float, typer.Option(min=0, help="Of the change of expression, with --relative.")] = 1.0,
    yaw: Annotated[float | None, typer.Option(min=-90, max=90, help="Degrees, up to image left.")] = None,
    pitch: Annotated[float | None, typer.Option(min=-90, max=90, help="Degrees, up to image top.")] = None,
    roll: Annotated[float | None, typer.Option(min=-90, max=90, help="Degrees, clockwise on screen.")] = None,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Show source, driving and made.")] = False,
    no_crop: Annotated[bool, typer.Option("--no-crop", help="Inputs are squares around a face already.")] = False,
    source_domain: Annotated[str, typer.Option(help="Whose detectors find the source's face.")] = "real",
    driving_domain: Annotated[str, typer.Option(help="Whose detectors find the driving face.")] = "real",
    profile: ProfileOption = "embedded",
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting of the builder's; repeatable.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Frames made at once; 8 on a GPU, else 1.")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Make pictures of faces move as films do; several of either make every pair."""
    from flows.cli.progress import Bars
    from training.engine.launch import one_device

    jobs = plan_jobs(source, driving, output)
    chosen = one_device(device)
    on_gpu = chosen.type == "cuda"
    config = _checked_config(
        relative=relative,
        motion_multiplier=multiplier,
        yaw_deg=yaw,
        pitch_deg=pitch,
        roll_deg=roll,
        batch_size=batch_size or (8 if on_gpu else 1),
        half=on_gpu,
        graph=on_gpu,
    )
    driver = _fast_driver(checkpoint, chosen)
    look = _Look(not no_crop, source_domain, driving_domain, profile, tuple(set_ or ()), side_by_side)
    with Bars() as bars:
        _make_all(jobs, driver, config, look, bars.report)


def plan_jobs(sources: Sequence[Path], drivings: Sequence[Path], output: Path) -> list[_Job]:
    """Every pair and where it goes: one to the file ``output``, several into that folder as SOURCE-DRIVING.mp4.

    Raises:
        UsageError: when the output cannot be, or two pairs have one name.
    """
    pairs = list(itertools.product(sources, drivings))
    if len(pairs) == 1:
        if output.is_dir():
            raise UsageError(f"{output} is a folder: name an .mp4 file in it")
        if output.suffix.lower() != ".mp4":
            raise UsageError(f"{output} is no .mp4 file: name one")
        outputs = [output]
    else:
        if output.exists() and not output.is_dir():
            raise UsageError(f"{output} is a file: {len(pairs)} films go into a folder")
        outputs = [output / f"{source.stem}-{driving.stem}.mp4" for source, driving in pairs]
        twice = [path.name for number, path in enumerate(outputs) if path in outputs[:number]]
        if twice:
            raise UsageError(f"two pairs would both be {twice[0]}: give the files names of their own")
    if not output.parent.is_dir():
        raise UsageError(f"{output.parent} is no folder: make it, or name another place")
    return [_Job(source, driving, path) for (source, driving), path in zip(pairs, outputs, strict=True)]


def _checked_config(**fields: Any) -> "AnimateConfig":
    """The config of these fields; what may surprise about it is said."""
    from pydantic import ValidationError

    from training.engine.animator import AnimateConfig

    try:
        config = AnimateConfig(**fields)
    except ValidationError as error:  # what ranges of options let through
        problem = error.errors()[0]
        raise UsageError(f"{problem['loc'][0]}: {problem['msg']}, found {problem['input']}") from error
    if config.doubts:
        _say(config.doubts)
    return config


def _fast_driver(checkpoint: Path, device: "torch.device") -> "Driver":
    import torch

    from training.engine.trained import load_driver

    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.backends.cudnn.benchmark = True  # shapes are fixed
    try:
        return load_driver(checkpoint, device).faster(half=on_gpu, channels_last=on_gpu)
    except CheckpointError as error:
        raise UsageError(f"--checkpoint: {error}") from error


def _make_all(jobs: Sequence[_Job], driver: "Driver", config: "AnimateConfig", look: _Look, report: Report) -> None:
    """All inputs are looked at before the first film is made, so that a mistake in the last costs nothing."""
    from training.engine.animator import Animator

    size_px = driver.image_px
    framer = _framer(look, size_px) if look.crop else None
    pictures = {job.source: _picture(job.source, size_px, framer, look) for job in jobs}
    drivings = dict.fromkeys(job.driving for job in jobs)
    films = {path: _film(path, size_px, framer, look, report) for path in drivings}
    jobs[0].output.parent.mkdir(exist_ok=True)
    for source, group in itertools.groupby(jobs, key=lambda job: job.source):
        animator = Animator(
            driver,
            pictures[source],
            config,
            source_domain=look.source_domain,
            driving_domain=look.driving_domain,
        )
        for job in group:
            film = films[job.driving]
            write_film(animator, pictures[source], film, job.output, report, side_by_side=look.side_by_side)


def _framer(look: _Look, size_px: int) -> "Framer":
    try:
        from flows.framing import Framer
        from flows.settings import read_settings
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in PACKAGES:
            raise
        raise UsageError(
            f"finding faces needs the builder's packages ({error.name} is missing): {install_command('build')}, "
            "or crop the inputs to squares around a face and say --no-crop"
        ) from error
    return Framer(read_settings(None, look.settings, look.profile), size_px, _say)


def _picture(path: Path, size_px: int, framer: "Framer | None", look: _Look) -> "Picture":
    from training.film.film import cropped_picture

    return framer.picture(path, look.source_domain) if framer else cropped_picture(path, size_px)


def _film(path: Path, size_px: int, framer: "Framer | None", look: _Look, report: Report) -> "Film":
    from training.film.film import cropped_film

    return framer.film(path, look.driving_domain, report) if framer else cropped_film(path, size_px)


def write_film(
    animator: "Animator", source: "Picture", film: "Film", output: Path, report: Report, *, side_by_side: bool
) -> None:
    """One film: the source moved as ``film`` does, at its rate and with its sound.

    Raises:
        AnitalkError: when the film breaks off or the output cannot be written.
    """
    import torch

    from training.film.writer import FilmWriter

    reference = None
    if animator.config.relative:
        stage = f"comparing {film.path.name}"
        number, reference = animator.nearest(_counted(film.frames(), film.num_frames, stage, report))
        _say(f"{film.path.name}: motion is relative to its frame {number}, which is most like the source")
    driving, shown = itertools.tee(film.frames())  # no further apart than a batch
    size_px = animator.driver.image_px
    width_px = 3 * size_px if side_by_side else size_px
    frames = animator.frames(driving, reference)
    with FilmWriter(output, film, width_px, size_px) as writer:
        for picture in _counted(frames, film.num_frames, f"making {output.name}", report):
            given = next(shown)
            moved = picture.cpu()
            writer.add(torch.cat([source, given, moved], dim=2) if side_by_side else moved)
    _say(f"{output}: {writer.num_frames} frames at {float(film.fps):.3f} fps")


def _counted(pictures: "Iterable[Picture]", total: int, stage: str, report: Report) -> "Iterator[Picture]":
    """The pictures as they are, reported as they pass; a film may hold fewer or more than it claims."""
    for number, picture in enumerate(pictures, start=1):
        report(stage, min(number, total - 1), total)
        yield picture
    report(stage, total, total)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
