"""``anitalk doctor``: what this machine has, what is missing, and how to mend it."""

import importlib.metadata
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import EXIT_FAULTS, AnitalkError
from schemas.extras import install_command

_PACKAGES = ("av", "numpy", "opencv-python-headless", "onnxruntime", "scenedetect", "torch", "transformers", "webdataset", "yt-dlp")  # fmt: skip  # noqa: E501
_OPENCVS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
_LOW_DISK_BYTES = 5e9


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    fine: bool
    text: str


def doctor(
    workspace: Annotated[str | None, typer.Option("--workspace", "-w", help="Check its disk too.")] = None,
) -> int:
    """Check this machine: versions, OpenCV, FFmpeg, GPU, disk, model files; say how to mend what is missing."""
    findings = examine(workspace)
    for finding in findings:
        print(f"{'ok  ' if finding.fine else 'MEND'}  {finding.subject:<12} {finding.text}")  # noqa: T201
    return 0 if all(finding.fine for finding in findings) else EXIT_FAULTS


def examine(workspace: str | None = None) -> list[Finding]:
    """Look at everything a build depends on."""
    return [
        _python(),
        *_packages(),
        _opencv(),
        _ffmpeg(),
        _gpu(),
        *_models(),
        _weights(),
        _javascript(),
        _disk(workspace),
    ]


def _python() -> Finding:
    fine = (3, 11) <= sys.version_info[:2] < (3, 13)
    mend = "" if fine else ": use Python 3.11 or 3.12"
    return Finding("python", fine, f"{platform.python_version()}{mend}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> list[Finding]:
    versions = {name: _version(name) for name in _PACKAGES}
    return [
        Finding(name, version is not None, version or f"missing: {install_command('build')}")
        for name, version in versions.items()
    ]


def _opencv() -> Finding:
    installed = [f"{name} {_version(name)}" for name in _OPENCVS if _version(name)]
    mend = "pip uninstall -y " + " ".join(_OPENCVS) + " && pip install 'opencv-python-headless>=4.10,<5'"
    if len(installed) != 1:
        return Finding("opencv", False, f"{', '.join(installed) or 'none'}; exactly one 4.x is needed: {mend}")
    try:
        import cv2
    except ImportError as error:
        return Finding("opencv", False, f"{error}: {mend}")
    fine = cv2.__version__.startswith("4.") and hasattr(cv2, "CascadeClassifier")
    return Finding("opencv", fine, f"one cv2, {cv2.__version__}" + ("" if fine else f"; a 4.x is needed: {mend}"))


def _ffmpeg() -> Finding:
    try:
        import av
        import imageio_ffmpeg

        codecs = {"h264", "libx264", "aac", "flac"} - av.codecs_available
        program = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        return Finding("ffmpeg", False, f"{error}: {install_command('build')}")
    if codecs:
        return Finding("ffmpeg", False, f"PyAV lacks {', '.join(sorted(codecs))}: pip install --force-reinstall av")
    libraries = ".".join(str(part) for part in av.library_versions["libavcodec"])
    return Finding("ffmpeg", True, f"libavcodec {libraries} in PyAV; program {Path(program).name} for yt-dlp")


def _gpu() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("gpu", True, "torch is not installed: HuBERT and training need it")
    if torch.cuda.is_available():
        return Finding("gpu", True, torch.cuda.get_device_name(0))
    return Finding("gpu", True, "none: everything runs on the CPU")


def _models() -> list[Finding]:
    findings = []
    try:
        from pipeline.models.files.packaged import PACKAGED_MODELS, packaged_model
    except ImportError as error:
        return [Finding("models", False, f"{error}: {install_command('build')}")]
    for name in PACKAGED_MODELS:
        try:
            model = packaged_model(name)
        except AnitalkError as error:
            findings.append(Finding("model", False, str(error)))
        else:
            text = f"{name} {model.sha256[:12]} ({model.card.licence}, {model.card.package})"
            findings.append(Finding("model", True, text))
    return findings


def _weights() -> Finding:
    try:
        from pipeline.models.files.weights import WeightsStore

        store = WeightsStore()
        present = [
            name
            for name, weights in sorted(store.registry.items())
            if all((store.folder / file.path).is_file() for file in weights.files)
        ]
    except (ImportError, AnitalkError) as error:
        return Finding("weights", False, f"{error}")
    have = f"{len(present)} of {len(store.registry)} there" + (f": {', '.join(present)}" if present else "")
    return Finding(
        "weights", True, f"{store.folder}, {have}; none is needed by the embedded profile ('anitalk weights list')"
    )


def _javascript() -> Finding:
    program = shutil.which("deno") or shutil.which("node") or shutil.which("bun")
    text = program or "none: needed only for YouTube; install deno"
    return Finding("javascript", True, text)


def _disk(workspace: str | None) -> Finding:
    folder = Path(workspace) if workspace and "://" not in workspace else Path.cwd()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    mend = "" if free >= _LOW_DISK_BYTES else ": an hour of 1080p source takes about 2 GB, its clips about 1 GB"
    return Finding("disk", free >= _LOW_DISK_BYTES, f"{free / 1e9:.1f} GB free at {folder}{mend}")
