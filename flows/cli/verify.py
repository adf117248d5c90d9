"""``anitalk verify``: a release checked, byte by byte and sample by sample."""

from typing import Annotated

import typer

from schemas.errors import EXIT_FAULTS


def verify(
    location: Annotated[str, typer.Argument(metavar="RELEASE", help="Folder or URI of a release.")],
    fast: Annotated[bool, typer.Option("--fast", help="Checksums and structure only: decode no video.")] = False,
) -> int:
    """Check a release: checksums, invariants, schema, splits. Exit code 1 when there are faults."""
    return print_faults(location, deep=not fast)


def print_faults(location: str, *, deep: bool = True) -> int:
    """Check a release, print what is wrong with it, and return the exit code.

    Args:
        location: folder or URI of the release.
        deep: decode every video too.

    Raises:
        UsageError: when there is no release.
    """
    from pipeline.release.verify import verify_release

    faults = verify_release(location, deep=deep)
    for fault in faults:
        print(f"{fault.path}: {fault.clip_id + ': ' if fault.clip_id else ''}{fault.problem}")  # noqa: T201
    print(f"{location}: {f'{len(faults)} faults' if faults else 'verified, no faults'}")  # noqa: T201
    return EXIT_FAULTS if faults else 0
