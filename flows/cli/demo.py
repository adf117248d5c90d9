"""``anitalk demo``: films that this project renders itself go the whole way to a verified release."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.options import WorkspaceOption

if TYPE_CHECKING:
    from pipeline.store.workspace import Workspace

RELEASE_NAME = "demo"


def demo(workspace: WorkspaceOption = "out/demo") -> int:
    """Render a few sources, build them, release the clips and verify the release; needs no network."""
    from flows.build import BuildRequest
    from flows.cli.build import build_to_clips
    from flows.cli.release import print_release
    from flows.cli.status import print_status
    from flows.cli.verify import print_faults

    folder = Path(workspace)
    opened = build_to_clips(BuildRequest(manifest=str(_rendered(folder / "films")), workspace=workspace))
    print_status(opened)
    print_release(RELEASE_NAME, workspace)
    _draw_sheets(opened, folder / "sheets")
    location = folder / "releases" / RELEASE_NAME
    print(f"overview {location}/overview.png")  # noqa: T201
    print(f"sheets   {folder / 'sheets'}/  (one contact sheet per clip)")  # noqa: T201
    return print_faults(str(location))


def _rendered(folder: Path) -> Path:
    """Render the films; returns their manifest.

    A file of truths (``truth.json``) comes to lie beside it; it is for people and tests to compare with and is never
    handed to the pipeline.
    """
    from pipeline.demo.sources import MANIFEST, render_demo
    from pipeline.store.storage import clear_write_errors

    sys.stderr.write(f"rendering the demo's films into {folder}\n")
    with clear_write_errors(str(folder)):
        render_demo(folder)
    return folder / MANIFEST


def _draw_sheets(workspace: "Workspace", folder: Path) -> None:
    from pipeline.build.pictures import draw_finished_clip
    from pipeline.build.results import load_build, results_of
    from pipeline.build.survey import survey
    from pipeline.models.speech import SileroVad
    from pipeline.store.storage import clear_write_errors

    build = load_build(workspace)
    results, vad = results_of(workspace, build), SileroVad()
    clips = survey(results, build.sources).clips
    with clear_write_errors(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        for finished in clips:
            (folder / f"{finished.clip.clip_id}.png").write_bytes(draw_finished_clip(results, finished, vad))
