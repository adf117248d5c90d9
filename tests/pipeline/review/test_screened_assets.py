"""Real media that nobody here made, from the build to the release with nothing but keys in between."""

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import yaml

from pipeline.release.verify import verify_release
from tests.helpers.films import environment, program
from tests.helpers.reviewing import surveyed
from tests.helpers.screened import running
from tests.pipeline.review import test_page as test_review_page
from tests.pipeline.review.test_page import Page

pytestmark = [pytest.mark.slow, pytest.mark.assets, pytest.mark.browser]
chromium = test_review_page.chromium  # a fixture

# What the manifest claims; the mesh is claimed to be filmed, which a person will see.
CLAIMED = {
    "WDA_AlexandriaOcasioCortez_000": "real",
    "tps_driving": "real",
    "man_FaceTalk": "real",
    "bbaf2n": "real",
    "id2_vcd": "real",
    "sintel": "disney_human",
    "penny": "disney_human",
    "goldeneye": "real",
    "d9": "real",
}
TRIM = (20, 150)
DOMAINS = ["disney_animal", "disney_human", "mesh", "real"]  # as the dialog numbers them


def anitalk(*arguments: str) -> str:
    done = subprocess.run(program(*arguments), env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Screened:
    workspace: Path

    @property
    def release(self) -> Path:
        return self.workspace / "releases" / "screened"


@pytest.fixture(scope="module")
def screened(assets: Path, chromium, tmp_path_factory: pytest.TempPathFactory) -> Screened:
    """Built, screened by keyboard alone, released."""
    folder = tmp_path_factory.mktemp("talkers")
    sources = [
        {
            "id": path.stem[:40],
            "uri": str(path),
            "domain": CLAIMED[name],
            "license": "LicenseRef-test-only",
            "title": path.stem,
        }
        for path in sorted((assets / "video").iterdir())
        for name in CLAIMED
        if path.name.startswith(name) and path.suffix != ".align"
    ]
    (folder / "manifest.yaml").write_text(yaml.safe_dump({"sources": sources}))
    workspace = str(folder / "ws")
    anitalk("build", str(folder / "manifest.yaml"), "-w", workspace, "--inline")
    with running(workspace, "--reviewer", "ann") as server:
        page = Page(chromium, server.address)
        screen(page)
        page.stored()
        page.close()
    anitalk("release", "screened", "-w", workspace)
    return Screened(folder / "ws")


def screen(page: Page) -> None:
    """Go on until everybody wanted was seen, whatever the order; of the others nothing is said."""
    wanted = {"WDA", "man_FaceTalk", "tps_driving", "bbaf2n", "d9"}
    page.press("n")
    for _ in range(60):
        if not wanted:
            return
        clip_id = page.clip()
        page.shows(clip_id)
        name = next((prefix for prefix in wanted if clip_id.startswith(prefix)), None)
        wanted.discard(name or "")
        decide(page, clip_id, name)
        page.until("(id) => location.hash !== '#' + id", arg=clip_id)
    raise AssertionError(f"never seen: {wanted}")


def decide(page: Page, clip_id: str, name: str | None) -> None:
    if name is None:
        page.press("s")
        return
    if name == "WDA":
        cut(page, *TRIM)
    elif name == "man_FaceTalk":
        page.press("d", str(DOMAINS.index("mesh") + 1), "i")
        page.page.keyboard.type("the-head")
        page.press("Enter")
        page.says("#title", "the-head")
    elif name == "tps_driving":
        page.press("a", "u")  # a mistake, and taken back
        page.shows(clip_id)
        page.press("r", "2")
        return
    page.press("a")


def stepped(page: Page, frame: int) -> bool:
    """Whether it stands at a frame; if not, as many steps are taken towards it, and it has to be asked again.

    A frame that was on its way when the film was stopped may still be painted, and then be counted from.
    """
    away = frame - int((page.page.text_content("#time") or "").split("/")[0])
    page.press(*("." if away > 0 else ",") * abs(away))
    page.page.wait_for_timeout(200)
    return away == 0 and (page.page.text_content("#time") or "").startswith(f"{frame} /")


def cut(page: Page, start: int, stop: int) -> None:
    page.press("k")
    for frame, key in ((start, "["), (stop - 1, "]")):
        page.wait_for(lambda wanted=frame: stepped(page, wanted), f"frame {frame}")
        page.press(key)
    page.says("#title", f"cut to {start}–{stop}")


def samples_of(release: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Shard and members of every visual sample."""
    for path in sorted(release.rglob("*-visual-*.tar")):
        samples: dict[str, dict[str, bytes]] = {}
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                key, _, suffix = member.name.partition(".")
                opened = tar.extractfile(member)
                assert opened is not None
                samples.setdefault(key, {})[suffix] = opened.read()
        for sample in samples.values():
            yield path.relative_to(release).as_posix(), sample


def sample_of(screened: Screened, name: str) -> tuple[str, dict[str, bytes], dict[str, object]]:
    matching = [
        (shard, sample, info)
        for shard, sample in samples_of(screened.release)
        if (info := json.loads(sample["json"]))["source_id"].startswith(name)
    ]
    (only,) = matching
    return only


def frames_of(mp4: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(mp4)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def test_the_release_verifies(screened: Screened):
    assert verify_release(str(screened.release)) == []
    anitalk("verify", str(screened.release))
    assert {json.loads(sample["json"])["source_id"][:3] for _, sample in samples_of(screened.release)} == {
        "WDA", "man", "bba", "d9", "id2",
    }  # fmt: skip


def test_the_cut_clip_has_exactly_the_frames_that_were_chosen(screened: Screened):
    _, sample, info = sample_of(screened, "WDA")
    [whole] = [clip for clip in surveyed(screened.workspace) if clip.source.id.startswith("WDA")]
    folder = screened.workspace / "results" / "clip" / whole.key
    start, stop = TRIM
    expected = frames_of((folder / "mp4").read_bytes())[start:stop]
    frames = frames_of(sample["mp4"])
    assert len(frames) == info["num_frames"] == stop - start
    assert all(np.array_equal(frame, other) for frame, other in zip(frames, expected, strict=True))
    for name in ("landmarks.npy", "pose.npy", "valid.npy"):
        np.testing.assert_array_equal(np.load(io.BytesIO(sample[name])), np.load(folder / name)[start:stop])


def test_the_relabelled_clip_lies_in_its_new_domain(screened: Screened):
    shard, _, info = sample_of(screened, "man_FaceTalk")
    assert (info["domain"], info["identity_id"]) == ("mesh", "the-head")
    assert shard.split("/")[1] == "mesh"


def test_the_card_and_the_decisions_say_who_it_was(screened: Screened):
    steps = json.loads((screened.release / "about.json").read_text())["funnel"]["steps"]
    [step] = [entry for entry in steps if entry["stage"] == "select"]
    by_people = [(drop["reason"], drop["count"]) for drop in step["drops"] if drop.get("by") == "reviewer"]
    assert (by_people, step["overruled"]) == ([("out_of_sync", 1)], 1)
    assert "| ↳ `out_of_sync` by a reviewer | | | | 1 |" in (screened.release / "README.md").read_text()
    decisions = json.loads(anitalk("decisions", "-w", str(screened.workspace), "--format", "json"))
    people = {row["clip_id"].split("-")[0][:6]: row for row in decisions if row["by"] == "reviewer"}
    assert {name: (row["keep"], row["reason"], row["who"]) for name, row in people.items()} == {
        "WDA_Al": (True, None, "ann"),
        "man_Fa": (True, None, "ann"),
        "tps_dr": (False, "out_of_sync", "ann"),
        "bbaf2n": (True, None, "ann"),
        "d9": (True, None, "ann"),
    }
    assert people["d9"]["overrules"] == "not_speaking"
