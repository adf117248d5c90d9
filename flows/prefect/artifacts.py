"""What a run shows of itself in Prefect's pages: how far it is, its funnel, its release or pictures, what it waits for.

Titles and addresses come from manifests, so nothing of them is put into Markdown here: only counts, names that were
checked as ids, and pictures.
"""

import base64
import io
from pathlib import Path
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.release import FinishedRelease
from flows.screening import screening_lines
from pipeline.build.results import load_build, results_of
from pipeline.card.markdown import draw_funnel
from pipeline.curate.choice import ReleaseOptions, choose
from pipeline.curate.reviewed import survey_reviewed
from pipeline.store.workspace import Workspace
from schemas.funnel import Funnel

# Prefect lists artifacts by key, newest first: these are the names under which people find them.
PROGRESS, FUNNEL, FUNNEL_PICTURE, CARD, RELEASE, SCREENING, TRAINING, TRAINED = (
    "anitalk-progress",
    "anitalk-funnel",
    "anitalk-funnel-picture",
    "anitalk-card",
    "anitalk-release",
    "anitalk-screening",
    "anitalk-training",
    "anitalk-trained",
)
_WIDEST_PX = 1200  # of a picture that is kept in Prefect's database


class SourceProgress:
    """The share of sources that were taken as far as they go, in percent."""

    def __init__(self, num_sources: int) -> None:
        self._num_sources, self._num_done = num_sources, 0
        created = create_progress_artifact(0.0, key=PROGRESS, description=self._description())
        assert isinstance(created, UUID)  # noqa: S101 - a coroutine only for asynchronous callers
        self._id = created

    def add(self, num_sources: int) -> None:
        """So many more sources are done."""
        self._num_done += num_sources
        share = 100.0 * self._num_done / self._num_sources
        update_progress_artifact(self._id, round(share, 1), description=self._description())

    def _description(self) -> str:
        return f"{self._num_done} of {self._num_sources} sources taken as far as they go"


def show_funnel(workspace: str) -> Funnel:
    """Publish what became of everything that entered the build, as a table and as a picture.

    Returns:
        The funnel, for whoever wants to say it in words.
    """
    opened = Workspace(workspace)
    build = load_build(opened)
    results = results_of(opened, build)
    funnel = choose(results, build, survey_reviewed(results, build.sources), ReleaseOptions()).funnel
    create_table_artifact(funnel_rows(funnel), key=FUNNEL, description=f"What became of everything in {workspace}")
    create_markdown_artifact(
        f"![The funnel: a bar per step, with the reasons for what was dropped]({_inline(draw_funnel(funnel))})",
        key=FUNNEL_PICTURE,
        description=f"The funnel of {workspace}",
    )
    return funnel


def funnel_rows(funnel: Funnel) -> list[dict[str, str | int]]:
    """One row per step of a funnel, with its reasons in words, most frequent first."""
    return [
        {
            "step": step.stage,
            "unit": step.unit,
            "entered": step.entered,
            "passed": step.passed,
            "dropped": step.num_dropped,
            "still to do": step.pending,
            "reasons": ", ".join(
                f"{drop.label} {drop.count}" for drop in sorted(step.drops, key=lambda drop: (-drop.count, drop.label))
            ),
        }
        for step in funnel.steps
    ]


def show_release(finished: FinishedRelease) -> None:
    """Publish where the release and its card lie, and the release's funnel.

    Browsers follow no link from a web page to a local file, so the path itself is the link's text.
    """
    record = finished.record
    card = f"{finished.location}/README.md"
    create_link_artifact(
        card if "://" in card else f"file://{card}",
        link_text=card,
        key=CARD,
        description=f"The dataset card of the release {record.name}",
    )
    lines = "\n".join(finished.lines())
    create_markdown_artifact(
        f"# Release {record.name}\n\n```\n{lines}\n```\n\n"
        f"![The release's funnel]({_inline(draw_funnel(finished.choice.funnel))})\n",
        key=RELEASE,
        description=f"The release {record.name}: {record.num_clips} clips",
    )


def show_screening(workspace: str, release: str) -> None:
    """Publish how to screen the clips, and how this run goes on afterwards."""
    commands = "\n".join(screening_lines(workspace, release))
    create_markdown_artifact(
        "# The clips wait for screening\n\nOn a machine that sees the workspace:\n\n"
        f"```\n{commands}\n```\n\n"
        "Or press **Resume** on this run's page when the clips are screened: the run then makes the release itself.\n",
        key=SCREENING,
        description="What to do before this run can go on",
    )


class PairProgress:
    """The share of a training's pairs that were drawn, in percent; shown once there is one."""

    def __init__(self) -> None:
        self._id: UUID | None = None

    def reach(self, num_pairs: int, of: int) -> None:
        """So many pairs are done."""
        share, description = round(100.0 * num_pairs / of, 1), f"{num_pairs} of {of} pairs"
        if self._id is not None:
            update_progress_artifact(self._id, share, description=description)
            return
        created = create_progress_artifact(share, key=TRAINING, description=description)
        assert isinstance(created, UUID)  # noqa: S101 - a coroutine only for asynchronous callers
        self._id = created


def show_training(output: Path, sentence: str) -> None:
    """Publish how a training ended, with its last picture of every kind, if there is one."""
    last = {path.name.rpartition("-")[0]: path for path in sorted((output / "pictures").glob("*-*.png"))}
    pictures = "".join(f"## {path.stem}\n\n![{path.stem}]({_inline(_small(path))})\n\n" for path in last.values())
    columns = "Source, driving, made, warped, keypoints, occlusion; a row per pair.\n\n" if last else ""
    create_markdown_artifact(
        f"# Training\n\n```\n{sentence}\n{output}\n```\n\n{columns}{pictures}",
        key=TRAINED,
        description=sentence[:200],
    )


def _small(path: Path) -> bytes:
    """A picture as PNG, small enough for a database."""
    from PIL import Image

    with Image.open(path) as picture:
        picture.thumbnail((_WIDEST_PX, _WIDEST_PX))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
    return buffer.getvalue()


def _inline(png: bytes) -> str:
    """A picture inside its own address, since Prefect keeps no files."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
