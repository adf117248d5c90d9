"""``anitalk bench``: measure the models on hand-labelled media."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.listing import write_file

bench_app = typer.Typer(help="Measure the models on hand-labelled media.", no_args_is_help=True)


@bench_app.callback()
def _group() -> None:
    """Keep the name of the one command."""


@bench_app.command()
def accuracy(
    assets: Annotated[Path, typer.Option("--assets", help="Folder of video, stills, truth, and perhaps weights.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Markdown file; its picture lies beside it.")] = Path(
        "docs/accuracy.md"
    ),
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="weights.dir=DIR, where the weights are not in the assets.")
    ] = None,
) -> None:
    """Score detectors, shots, landmarks, poses, mouths and sync against known truth; takes minutes."""
    from flows.settings import read_settings
    from pipeline.bench.models import asset_models
    from pipeline.bench.picture import draw
    from pipeline.bench.report import measure, to_markdown

    settings = read_settings(None, set_ or [])
    models = asset_models(assets, settings.weights.dir)
    found = measure(assets, models, lambda part: print(f"measuring {part} …", file=sys.stderr))  # noqa: T201
    picture = output.with_suffix(".png")
    write_file(picture, draw(found))
    write_file(output, to_markdown(found, picture.name).encode())
    print(f"{output} and {picture.name}")  # noqa: T201
