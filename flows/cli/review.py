"""``anitalk review``: screen the clips of a workspace in a browser, and carry what was said out of it and in."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import FormatOption, OutputOption, WorkspaceOption
from flows.cli.rows import Format
from schemas.errors import UsageError

review_app = typer.Typer(help="Screen clips in a browser; export, import and compare what people said of them.")


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
    host: Annotated[str, typer.Option(help="Address to listen to; beyond loopback others reach it.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: the last one where it is free, else any.")] = 0,
    reviewer: Annotated[str | None, typer.Option(help="Your name on what you decide; your login by default.")] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the address, open no browser.")] = False,
) -> None:
    """Open the screening page, where no other command is named."""
    if context.invoked_subcommand is not None:
        return
    from pipeline.review.server import open_page as serve

    if workspace is None:
        raise UsageError("which workspace? name it: 'anitalk review --workspace DIR'")
    serve(workspace, host=host, port=port, reviewer=reviewer, browser=not no_open)


@review_app.command(name="export")
def export_reviews(
    workspace: WorkspaceOption,
    form: Annotated[ExchangeFormat, typer.Option("--format", "-f", help="For whom it is written.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File or folder to write; for html also a .zip. Tables go to the screen."),
    ] = None,
    video_prefix: Annotated[
        str | None,
        typer.Option(help="labelstudio: address under which it finds CLIP.mp4; the films are then not copied."),
    ] = None,
) -> None:
    """Write clips and reviews for Label Studio, for a colleague without the tool, or as a table of all reviews."""
    from flows.cli.review_exchange import export_bundle, export_tables, export_tasks

    if video_prefix is not None and form is not ExchangeFormat.LABELSTUDIO:
        raise UsageError(f"--video-prefix belongs to --format labelstudio: leave it out for {form.value}")
    if form is ExchangeFormat.LABELSTUDIO:
        export_tasks(workspace, output or Path("review-labelstudio"), video_prefix)
    elif form is ExchangeFormat.HTML:
        export_bundle(workspace, output or Path("review-html"))
    else:
        export_tables(workspace, form.value, output)


@review_app.command(name="import")
def import_reviews(
    workspace: WorkspaceOption,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL, CSV or Parquet of ours, or Label Studio's.")],
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Leave out what is said of clips that are not here.")
    ] = False,
) -> None:
    """Add the reviews of a file to the workspace, all of them or, where anything is wrong, none."""
    from flows.cli.review_exchange import import_file

    import_file(workspace, file, skip_unknown=skip_unknown)


@review_app.command()
def agreement(
    workspace: WorkspaceOption,
    form: FormatOption = Format.TABLE,
    output: OutputOption = None,
) -> None:
    """Show how far reviewers agree: Cohen's kappa of each pair, and of each with their own blind second looks."""
    from flows.cli.review_exchange import show_agreement

    show_agreement(workspace, form, output)
