"""``anitalk show``: one clip, drawn as a contact sheet."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import WorkspaceOption
from flows.cli.rows import write_file


def show(
    clip: Annotated[str, typer.Argument(help="Id of a finished clip, or a part of it that only one has.")],
    workspace: WorkspaceOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file to write.")],
) -> None:
    """Draw a contact sheet: frames with landmarks and pose axes, mouth curve against the speech envelope."""
    from pipeline.build.pictures import draw_finished_clip
    from pipeline.build.results import load_build, results_of
    from pipeline.build.survey import find_clip
    from pipeline.curate.reviewed import survey_reviewed
    from pipeline.models.speech import SileroVad
    from pipeline.store.workspace import Workspace

    opened = Workspace(workspace)
    build = load_build(opened)
    results = results_of(opened, build)
    finished = find_clip(survey_reviewed(results, build.sources), clip)
    write_file(output, draw_finished_clip(results, finished, SileroVad()))
    print(output)  # noqa: T201
