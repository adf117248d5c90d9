"""``anitalk review``: screen the clips of a workspace in a browser, and carry what was said out of it and in."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

review_app = typer.Typer(help="Screen clips in a browser; export, import and compare what people said of them.")

WorkspaceOption = Annotated[str, typer.Option("--workspace", "-w", help="Folder or URI (s3://…) of the workspace.")]


class ExchangeFormat(StrEnum):
    """In which form clips and what was said of them leave a workspace."""

    LABELSTUDIO = "labelstudio"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    HTML = "html"


@review_app.callback(invoke_without_command=True)
def open_page(
    context: typer.Context,
    workspace: Annotated[
        str | None, typer.Option("--workspace", "-w", help="Folder or URI (s3://…) of the workspace.")
    ] = None,
) -> None:
    """Open the screening page, where no other command is named."""
    if context.invoked_subcommand is not None:
        return
    from pipeline.errors import UsageError

    raise UsageError(f"cannot open the screening page of {workspace}: name a command, such as 'anitalk review export'")


@review_app.command(name="export")
def export_reviews(
    workspace: WorkspaceOption,
    form: Annotated[ExchangeFormat, typer.Option("--format", "-f", help="For whom it is written.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File or folder to write.")] = None,
) -> None:
    """Write clips and reviews for Label Studio, for a colleague without the tool, or as a table."""
    raise NotImplementedError


@review_app.command(name="import")
def import_reviews(workspace: WorkspaceOption, file: Annotated[Path, typer.Argument(metavar="FILE")]) -> None:
    """Add the reviews of a file to the workspace: our own formats, or Label Studio's JSON export."""
    raise NotImplementedError


@review_app.command()
def agreement(workspace: WorkspaceOption) -> None:
    """Show how far reviewers agree: Cohen's kappa of each pair, and of each with their own second looks."""
    raise NotImplementedError
