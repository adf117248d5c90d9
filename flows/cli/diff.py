"""``anitalk diff``: what changed from one release to another."""

from typing import Annotated

import typer

from flows.cli.options import FormatOption, OutputOption
from flows.cli.rows import Format, write_rows
from schemas.errors import EXIT_FAULTS


def diff(
    before: Annotated[str, typer.Argument(metavar="RELEASE_A", help="Folder or URI of a release.")],
    after: Annotated[str, typer.Argument(metavar="RELEASE_B", help="Folder or URI of another.")],
    form: FormatOption = Format.TABLE,
    output: OutputOption = None,
) -> int:
    """Show what changed from one release to another. Exit code 0 when nothing did, 1 when they differ."""
    from pipeline.release.compare import COLUMNS, compare

    changes = compare(before, after)
    write_rows(changes, COLUMNS, form, output)
    return EXIT_FAULTS if changes else 0
