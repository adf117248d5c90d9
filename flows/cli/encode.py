"""``anitalk encode``: what a later stage learns from, computed once for all clips of a release.

Needs the ``train`` extra alone.
"""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import DeviceOption


def encode(
    checkpoint: Annotated[Path, typer.Option(help="A checkpoint, or the folder of a run, whose best one is taken.")],
    release: Annotated[str, typer.Option(help="Folder or URI of a release.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of what is written, beside the release's own.")
    ],
    recipe: Annotated[
        str | None, typer.Option(help="Whose checkpoint it has to be; the one it names by default.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Frames that are looked at at once.")] = 16,
    device: DeviceOption = "auto",
) -> None:
    """Write what a trained recipe makes of every clip of a release, for the stage that learns from it."""
    from flows.cli.progress import Bars
    from training.engine import encode as engine
    from training.engine.launch import one_device

    request = engine.EncodeRequest(checkpoint, release, output, batch_size=batch_size, recipe=recipe)
    with Bars() as bars:
        engine.encode(request, one_device(device), bars.report)
    print(output)  # noqa: T201
