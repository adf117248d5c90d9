"""Options that several commands share, so that each is spelled and explained once."""

import logging
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli.rows import Format

WorkspaceOption = Annotated[str, typer.Option("--workspace", "-w", help="Folder or URI (s3://…) of the workspace.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings that differ.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="One setting, such as split.seed=1; repeatable.")]
ProfileOption = Annotated[str, typer.Option(help="Whose models and defaults to use: embedded or standard.")]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How rows are written.")]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")]
InlineOption = Annotated[bool, typer.Option("--inline", help="In this process, without Ray.")]
RayOption = Annotated[str | None, typer.Option("--ray", help="Address of a Ray cluster; a local one by default.")]
AssetsOption = Annotated[Path, typer.Option("--assets", help="Folder of video, stills, truth, and perhaps weights.")]

Device = Literal["auto", "cpu", "cuda"]
DeviceOption = Annotated[Device, typer.Option(help="What to compute on; auto takes a GPU where there is one.")]
RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="Name of what is trained, such as anytalk.")]


def is_verbose() -> bool:
    """Whether ``anitalk --verbose`` was asked for."""
    return logging.getLogger().isEnabledFor(logging.INFO)
