"""The demo: films that this project renders itself go the whole way to a verified release."""

import sys
from pathlib import Path

RELEASE_NAME = "demo"


def run_demo(workspace: Path) -> int:
    """Render, build, release, draw, verify; returns the exit code of the verification.

    The films come with a file of truths (``truth.json``) beside their manifest; it is for people and
    tests to compare with and is never handed to the pipeline.
    """
    from flows.cli import application as cli
    from pipeline.build.pictures import draw_finished_clip
    from pipeline.build.results import load_build, results_of
    from pipeline.build.survey import survey
    from pipeline.demo.sources import MANIFEST, render_demo
    from pipeline.models.speech import SileroVad
    from pipeline.store.storage import clear_write_errors
    from pipeline.store.workspace import Workspace

    films = workspace / "films"
    sys.stderr.write(f"rendering the demo's films into {films}\n")
    with clear_write_errors(str(films)):
        render_demo(films)
    code = cli.build(films / MANIFEST, str(workspace), release_name=RELEASE_NAME)
    if code != 0:
        return code
    place = Workspace(workspace)
    made = load_build(place)
    results, vad = results_of(place, made), SileroVad()
    found = survey(results, made.sources)
    sheets = workspace / "sheets"
    with clear_write_errors(str(sheets)):
        sheets.mkdir(parents=True, exist_ok=True)
        for one in found.clips:
            (sheets / f"{one.clip.clip_id}.png").write_bytes(draw_finished_clip(results, one, vad))
    location = workspace / "releases" / RELEASE_NAME
    print(f"overview {location}/overview.png")  # noqa: T201
    print(f"sheets   {sheets}/  (one contact sheet per clip)")  # noqa: T201
    return cli.verify(str(location))
