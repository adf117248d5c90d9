"""The ``anitalk`` command.

Packages are imported by the commands that need them, so that ``--help`` and the small commands
answer at once and an installation with fewer extras still has the commands that work there.
"""

import contextlib
import logging
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from flows.cli.animate import animate
from flows.cli.bench import bench_app
from flows.cli.review import review_app
from flows.cli.rows import Format, write_file, write_rows
from flows.cli.weights import weights_app
from schemas.errors import EXIT_FAULTS, EXIT_INTERRUPTED, EXIT_SCREENING, EXIT_USAGE, AnitalkError
from training.cli import evaluate_app, train_app

if TYPE_CHECKING:
    from flows.build import Plan
    from pipeline.build.results import BuildRecord, Results


class ReasonClass(StrEnum):
    """Why an item failed, as the ledger says it."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    THROTTLED = "throttled"
    DECODE = "decode"
    CRASH = "crash"
    TIMEOUT = "timeout"


app = typer.Typer(
    name="anitalk",
    help="Build cross-domain talking-head video datasets: from a list of sources to verified WebDataset shards.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(weights_app, name="weights")
app.add_typer(bench_app, name="bench")
app.add_typer(review_app, name="review")
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")
app.command()(animate)

WorkspaceOption = Annotated[str, typer.Option("--workspace", "-w", help="Folder or URI (s3://…) of the workspace.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings that differ.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="One setting, such as split.seed=1; repeatable.")]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How rows are written.")]
InlineOption = Annotated[bool, typer.Option("--inline", help="In this process, without Ray.")]
RayOption = Annotated[str | None, typer.Option("--ray", help="Address of a Ray cluster; a local one by default.")]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")]


def main() -> NoReturn:
    """Run the command line; every mistake of a user's ends in one sentence and an exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code: 0, 1 faults, 2 user's mistake, 3 screening, 130 interrupted."""
    try:
        result = app(arguments, standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        result = EXIT_INTERRUPTED
    except SystemExit as stop:
        # Typer ends the program itself when the reader of a pipe has left, as `| head` does.
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        return 0
    except Exception as error:  # noqa: BLE001 - what is no mistake of the user is raised again
        return _failure(error)
    if result == EXIT_INTERRUPTED:
        return _fail("interrupted: run the same command again to go on", EXIT_INTERRUPTED)
    return result if isinstance(result, int) else 0


def _failure(error: Exception) -> int:
    # Typer carries its own copy of click; its errors know how to show themselves.
    show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
    if callable(show) and isinstance(code, int):
        show()
        return code
    if isinstance(error, ModuleNotFoundError):
        return _fail(_missing(error), EXIT_USAGE)
    if isinstance(error, AnitalkError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, BrokenPipeError):
        # The reader left before the last lines were sent; the flush at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    raise error


def _missing(error: ModuleNotFoundError) -> str:
    name = (error.name or "").split(".")[0]
    if name in {"pipeline", "flows", "schemas", "training"}:
        return (
            f"{error}: a folder or file named '{name}' seems to hide the installed package: "
            "run anitalk from another folder"
        )
    of_training = {"lightning_fabric", "tensorboard", "braceexpand"}
    extras = "build,review" if name in {"starlette", "uvicorn"} else "train" if name in of_training else "build"
    return f"the package '{name}' is not installed: pip install 'anitalk[{extras}]'"


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.stderr.write(f"anitalk: {message}\n")
    return code


@app.callback()
def _options(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log each finished step.")] = False) -> None:
    level = logging.INFO if verbose else logging.ERROR
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # FFmpeg's own log is noise about damage that the ledger reports in sentences.
    logging.getLogger("libav").setLevel(logging.CRITICAL)


# ---- build and release ---------------------------------------------------------------------------------------------


@app.command()
def build(
    manifest: Annotated[Path, typer.Argument(help="List of sources (YAML, CSV, JSONL), or a clip list.")],
    workspace: WorkspaceOption,
    config: ConfigOption = None,
    set_: SetOption = None,
    profile: Annotated[str, typer.Option(help="Whose models and defaults to use.")] = "embedded",
    release_name: Annotated[str | None, typer.Option("--release", help="Make this release at the end.")] = None,
    screen: Annotated[
        bool, typer.Option("--screen", help="Stop after the clips, so that they can be screened.")
    ] = False,
    inline: InlineOption = False,
    ray: RayOption = None,
    media: Annotated[Path | None, typer.Option(help="Folder of the local files that a clip list names.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N sources.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would be done, stop.")] = False,
) -> int:
    """Take every source as far as it goes; run again to go on where it stopped."""
    from flows.build import BuildRequest, opened_build, read_request
    from flows.cli.interrupts import kept_interrupts
    from flows.cli.progress import ConsoleProgress

    request = BuildRequest(
        manifest=str(manifest),
        workspace=workspace,
        config=config,
        media=media,
        settings=tuple(set_ or ()),
        profile=profile,
        limit=limit,
        ray_address=ray,
        inline=inline,
        verbose=_verbose(),
    )
    if dry_run:
        plan = read_request(request)
        return _dry_run(plan, workspace)
    with kept_interrupts(), ConsoleProgress() as progress, opened_build(request, progress) as opened:
        opened.run(opened.sources)
        place = opened.place
    _print_status(place)
    if screen:
        return _wait_for_screening(workspace, release_name)
    if release_name is None:
        return 0
    return release(release_name, workspace, config=None, set_=None)


def _wait_for_screening(workspace: str, release_name: str | None) -> int:
    from flows.cli.screening import screening_lines

    print("\nthe clips wait for screening")  # noqa: T201
    for line in screening_lines(workspace, release_name or ""):
        print(line)  # noqa: T201
    return EXIT_SCREENING


@app.command()
def retry(
    workspace: WorkspaceOption,
    classes: Annotated[list[ReasonClass] | None, typer.Option("--class", help="Only failures of this class.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Only this source; repeatable.")] = None,
    set_: SetOption = None,
    inline: InlineOption = False,
    ray: RayOption = None,
) -> int:
    """Try again what failed, also what was left alone; the latest build's sources and settings are used."""
    from flows.build import BuildRequest, retry_failures
    from flows.cli.progress import ConsoleProgress

    settings = tuple(set_ or ())
    request = BuildRequest("", workspace, settings=settings, ray_address=ray, inline=inline, verbose=_verbose())
    with ConsoleProgress() as progress:
        num_items, num_sources = retry_failures(request, set(classes or ()), set(source or ()), progress)
    print(f"tried {num_items} items of {num_sources} sources again")  # noqa: T201
    from pipeline.store.workspace import Workspace

    _print_status(Workspace(workspace))
    return 0


def _verbose() -> bool:
    return logging.getLogger().isEnabledFor(logging.INFO)


def _dry_run(plan: "Plan", workspace: str) -> int:
    sources = plan.sources
    domains = sorted({source.domain for source in sources})
    names = sorted({card.name for card in plan.models.files.cards(domains)})
    print(f"{len(sources)} sources in {', '.join(domains)} would be built in {workspace}, with {', '.join(names)}.")  # noqa: T201
    columns = ("id", "domain", "license", "uri")
    write_rows([source.model_dump(mode="json") for source in sources], columns, Format.TABLE, None)
    return 0


@app.command()
def release(
    name: Annotated[str, typer.Argument(help="Name of the release.")],
    workspace: WorkspaceOption,
    config: ConfigOption = None,
    set_: SetOption = None,
    to: Annotated[str | None, typer.Option(help="Folder or URI for releases; the workspace's own by default.")] = None,
    allow_license: Annotated[list[str] | None, typer.Option(help="Only sources of this licence; repeatable.")] = None,
    commercial_only: Annotated[bool, typer.Option("--commercial-only", help="Only commercial use allowed.")] = False,
    with_identity: Annotated[bool, typer.Option("--with-identity", help="Include face embeddings.")] = False,
) -> int:
    """Compare, select, split and pack all finished clips into an immutable release."""
    from flows.cli.progress import ConsoleProgress
    from flows.release import release_workspace
    from pipeline.curate.choice import ReleaseOptions

    options = ReleaseOptions(tuple(allow_license or ()), commercial_only, with_identity)
    with ConsoleProgress() as progress:
        made = release_workspace(
            name, workspace, config=config, settings=set_ or (), options=options, to=to, progress=progress
        )
    for line in made.lines():
        print(line)  # noqa: T201
    return 0


@app.command()
def verify(
    location: Annotated[str, typer.Argument(metavar="RELEASE", help="Folder or URI of a release.")],
    fast: Annotated[bool, typer.Option("--fast", help="Checksums and structure only: decode no video.")] = False,
) -> int:
    """Check a release: checksums, invariants, schema, splits. Exit code 1 when there are faults."""
    from pipeline.release.verify import verify_release

    faults = verify_release(location, deep=not fast)
    for fault in faults:
        print(f"{fault.path}: {fault.clip_id + ': ' if fault.clip_id else ''}{fault.problem}")  # noqa: T201
    print(f"{location}: {f'{len(faults)} faults' if faults else 'verified, no faults'}")  # noqa: T201
    return EXIT_FAULTS if faults else 0


@app.command()
def forget(
    source: Annotated[str, typer.Argument(help="Id of the source to take down.")],
    workspace: WorkspaceOption,
    reason: Annotated[str, typer.Option(help="Kept on the tombstone.")] = "",
    as_: Annotated[
        str | None, typer.Option("--as", help="Name of the new release; NAME-r2 and so on by default.")
    ] = None,
    releases: Annotated[list[str] | None, typer.Option(help="More places that hold releases; repeatable.")] = None,
    drop_old: Annotated[bool, typer.Option("--drop-old", help="Delete the releases that still hold it.")] = False,
) -> None:
    """Take a source down: out of the workspace, out of its releases (new ones are written), out of later builds."""
    from flows.cli.forget import run_forget

    run_forget(source, workspace, reason=reason, name=as_, more_releases=releases or (), drop_old=drop_old)


# ---- looking -------------------------------------------------------------------------------------------------------


@app.command()
def diff(
    before: Annotated[str, typer.Argument(metavar="RELEASE_A", help="Folder or URI of a release.")],
    after: Annotated[str, typer.Argument(metavar="RELEASE_B", help="Folder or URI of another.")],
    form: FormatOption = Format.TABLE,
    output: OutputOption = None,
) -> int:
    """Show what changed from one release to another. Exit code 0 when nothing did, 1 when they differ."""
    from pipeline.release.compare import COLUMNS, compare

    found = compare(before, after)
    write_rows(found, COLUMNS, form, output)
    return EXIT_FAULTS if found else 0


def _opened(workspace: str) -> tuple["Results", "BuildRecord"]:
    from pipeline.build.results import load_build, results_of
    from pipeline.store.workspace import Workspace

    place = Workspace(workspace)
    made = load_build(place)
    return results_of(place, made), made


@app.command()
def status(
    workspace: WorkspaceOption, json_: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Show what became of every source: the funnel, failures by class, and what is left."""
    from pipeline.store.workspace import Workspace

    _print_status(Workspace(workspace), as_json=json_)


def _print_status(place: object, *, as_json: bool = False) -> None:
    from flows.cli.status import print_status

    print_status(place, as_json=as_json)  # type: ignore[arg-type]


def _listing(name: str) -> None:
    def command(workspace: WorkspaceOption, form: FormatOption = Format.TABLE, output: OutputOption = None) -> None:
        from flows.cli.status import LISTINGS

        found, columns = LISTINGS[name](*_opened(workspace))
        write_rows(found, columns, form, output)

    command.__doc__ = f"List the {name} of a workspace."
    app.command(name=name)(command)


for _name in ("sources", "shots", "tracks", "clips", "decisions"):
    _listing(_name)


@app.command()
def show(
    clip: Annotated[str, typer.Argument(help="Id of a finished clip, or a part of it that only one has.")],
    workspace: WorkspaceOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file to write.")],
) -> None:
    """Draw a contact sheet: frames with landmarks and pose axes, mouth curve against the speech envelope."""
    from pipeline.build.pictures import draw_finished_clip
    from pipeline.build.survey import find_clip
    from pipeline.curate.reviewed import survey_reviewed
    from pipeline.models.speech import SileroVad

    results, made = _opened(workspace)
    found = find_clip(survey_reviewed(results, made.sources), clip)
    write_file(output, draw_finished_clip(results, found, SileroVad()))
    print(output)  # noqa: T201


@app.command()
def calibrate(
    workspace: WorkspaceOption,
    write: Annotated[Path | None, typer.Option("--write", help="YAML file for the fitted limits.")] = None,
    share: Annotated[float, typer.Option(min=0.5, max=1.0, help="Of the accepted clips that each keeps.")] = 0.98,
    min_clips: Annotated[int, typer.Option(min=1, help="Accepted clips that a domain needs.")] = 20,
) -> None:
    """Fit limits of each domain to its accepted clips, and show what they would keep and drop."""
    from flows.cli.calibrate import calibrate_workspace

    calibrate_workspace(*_opened(workspace), share=share, min_clips=min_clips, write=write)


# ---- upkeep --------------------------------------------------------------------------------------------------------


@app.command()
def gc(workspace: WorkspaceOption) -> None:
    """Drop fetched media whose clips are all done; their hashes stay, and local sources are never touched."""
    from pipeline.build.results import load_build
    from pipeline.build.upkeep import drop_leftovers, drop_media
    from pipeline.store.workspace import Workspace

    place = Workspace(workspace)
    with place.lock():
        num_files, num_bytes = drop_media(place, load_build(place))
        num_leftovers = drop_leftovers(place)
    print(f"dropped {num_files} fetched files, {num_bytes / 1e6:.1f} MB")  # noqa: T201
    if num_leftovers:
        print(f"dropped {num_leftovers} files that interrupted runs left half-written")  # noqa: T201


@app.command()
def doctor(
    workspace: Annotated[str | None, typer.Option("--workspace", "-w", help="Check its disk too.")] = None,
) -> int:
    """Check this machine: versions, OpenCV, FFmpeg, GPU, disk, model files; say how to mend what is missing."""
    from flows.cli.doctor import examine

    findings = examine(workspace)
    for finding in findings:
        print(f"{'ok  ' if finding.fine else 'MEND'}  {finding.subject:<12} {finding.text}")  # noqa: T201
    return 0 if all(finding.fine for finding in findings) else EXIT_FAULTS


@app.command()
def schema(name: Annotated[str | None, typer.Argument(help="A record's name; all of them by default.")] = None) -> None:
    """Print the JSON Schemas of sources, clips, samples, releases and the rest."""
    import json

    from schemas.arrow import json_schemas
    from schemas.errors import UsageError

    schemas = json_schemas()
    if name is not None and name not in schemas:
        raise UsageError(f"there is no record {name!r}: choose from {', '.join(schemas)}")
    print(json.dumps(schemas[name] if name else schemas, indent=1))  # noqa: T201


@app.command()
def demo(workspace: WorkspaceOption = "out/demo") -> int:
    """Render a few sources, build them, release the clips and verify the release; needs no network."""
    from flows.cli.demo import run_demo

    return run_demo(Path(workspace))


if __name__ == "__main__":
    main()
