"""The bundle that a colleague without the tool opens from a disk, in a real browser."""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli import application as cli
from pipeline.review.exchange.screened import read_screened
from pipeline.store.reviews import ReviewLog
from pipeline.store.workspace import Workspace
from schemas.decision import RejectReason
from schemas.review import Review, ReviewAction
from tests.helpers.exchanged import said, stocked

TITLE = "</script><script>document.title='hurt'</script><img src=x onerror=\"document.title='hurt'\"> & <!--"
NOTE = 'a "<b>note</b>" with ümläuts \\ and \N{GRINNING FACE}'


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """Four clips of a film with a hostile title; film-3 was accepted by somebody before."""
    source = stocked(tmp_path_factory.mktemp("bundle") / "ws", 4, size_px=128, title=TITLE)
    key = read_screened(source).clips["film-3"].key
    ReviewLog(source).append(said("film-3", key, who="zoe"))
    return Path(source.storage.root)


@pytest.fixture(scope="module")
def bundle(workspace) -> Path:
    folder = workspace.parent / "bundle"
    assert export(workspace, folder) == 0
    return folder


def export(workspace: Path, target: Path) -> int:
    return cli.run(["review", "export", "-w", str(workspace), "-f", "html", "-o", str(target)])


def members(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- the files -----------------------------------------------------------------------------------------------------


def test_the_zip_holds_the_same_bytes_as_the_folder_and_every_time(workspace, bundle, tmp_path):
    assert export(workspace, tmp_path / "b.zip") == export(workspace, tmp_path / "again" / "b.zip") == 0
    assert (tmp_path / "b.zip").read_bytes() == (tmp_path / "again" / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        archived = {name.removeprefix("b/"): archive.read(name) for name in archive.namelist()}
    assert archived == members(bundle)
    assert sorted(archived) == ["index.html", *(f"media/film-{k}.{kind}" for k in range(4) for kind in ("jpg", "mp4"))]


def test_the_page_needs_nothing_from_outside_and_strangers_words_are_no_markup(bundle):
    page = (bundle / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)\s*=\s*["']""", page)
    data = re.search(r'<script id="bundle" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert data
    assert json.loads(data[1])["clips"][0]["title"] == TITLE
    assert "<" not in data[1]
    assert len(re.findall("<script", page)) == 2
    assert "zoe" not in page  # who judged is nobody else's business


def test_a_clip_whose_film_is_gone_is_named(workspace, tmp_path, capsys):
    broken = Path(shutil.copytree(workspace, tmp_path / "ws"))
    key = read_screened(Workspace(broken)).clips["film-2"].key
    (broken / "results" / "clip" / key / "mp4").unlink()
    assert export(broken, tmp_path / "b") == 1
    assert f"{key} is damaged, its mp4 is missing" in capsys.readouterr().err
    assert not (tmp_path / "b" / "index.html").exists()


# ---- in the browser ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """A real Chromium; Playwright's own is never downloaded."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which(os.environ.get("ANITALK_CHROMIUM", "chromium"))
    if path is None:
        message = "needs Debian's Chromium (apt-get install chromium), or another one named by ANITALK_CHROMIUM"
        if os.environ.get("ANITALK_REQUIRE_ASSETS"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def context(chromium) -> Iterator:
    browsing = chromium.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True)
    browsing.set_default_timeout(60_000)
    yield browsing
    browsing.close()


@pytest.fixture
def page(context, bundle):
    return opened(context, bundle)


def opened(context, bundle: Path):
    page = context.new_page()
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda message: page.wrong.append(message.text) if message.type == "error" else None)
    page.goto((bundle / "index.html").as_uri())
    return page


def judge(page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def begin(page, who: str = "Bea") -> None:
    """Write one's name and open the first clip, by keyboard alone."""
    page.locator("#who").focus()
    page.keyboard.type(who)
    judge(page, "Enter", "Enter")
    page.locator("#focus").wait_for(state="visible")


def saved(page, folder: Path) -> Path:
    with page.expect_download() as download:
        page.keyboard.press("s")
    target = folder / download.value.suggested_filename
    download.value.save_as(target)
    return target


@pytest.mark.browser
def test_screened_by_keyboard_alone_and_imported(page, workspace, tmp_path):
    begin(page)
    page.evaluate(PLAYED)
    assert "1 / 4" in page.locator("#name").text_content()
    judge(page, "a")
    judge(page, "n")
    page.keyboard.type(NOTE)
    judge(page, "Escape", "6")
    judge(page, "2", "u", "ArrowLeft", "ArrowRight", "9")
    assert page.locator("#progress").text_content() == "4 of 4 judged"
    file = saved(page, tmp_path)
    assert file.name == "decisions-Bea.jsonl"
    assert page.wrong == []

    own = Path(shutil.copytree(workspace, tmp_path / "ws"))
    assert cli.run(["review", "import", "-w", str(own), str(file)]) == 0
    screened = read_screened(Workspace(own))
    judged = {clip_id: stands.verdict for clip_id, stands in screened.standing.items()}
    assert {
        clip_id: (verdict.action, verdict.reason, verdict.who) for clip_id, verdict in judged.items() if verdict
    } == {
        "film-0": (ReviewAction.ACCEPT, None, "Bea"),
        "film-1": (ReviewAction.REJECT, RejectReason.BLURRED, "Bea"),
        "film-2": (ReviewAction.REJECT, RejectReason.REVIEWER, "Bea"),
        "film-3": (ReviewAction.ACCEPT, None, "zoe"),
    }
    assert judged["film-1"] is not None
    assert judged["film-1"].note == NOTE
    mine = [review for review in screened.reviews if review.origin == "html"]
    assert [review.action.value for review in mine] == ["accept", "reject", "reject", "undo", "reject"]
    for review in mine:  # the page computes the very ids that the tool would
        assert Review.of(**review.model_dump(exclude={"review_id"})) == review


@pytest.mark.browser
def test_a_reload_loses_nothing_and_a_second_file_says_nothing_twice(page, workspace, tmp_path, capsys):
    begin(page)
    judge(page, "a", "1")
    own = Path(shutil.copytree(workspace, tmp_path / "ws"))
    assert cli.run(["review", "import", "-w", str(own), str(saved(page, tmp_path))]) == 0
    page.reload()
    assert page.locator("#who").input_value() == "Bea"
    assert page.locator("#progress").text_content() == "3 of 4 judged"
    page.locator(".card").first.focus()
    judge(page, "ArrowRight", "u")
    assert page.locator("#progress").text_content() == "2 of 4 judged"
    capsys.readouterr()
    assert cli.run(["review", "import", "-w", str(own), str(saved(page, tmp_path))]) == 0
    assert "1 reviews of 1 clips imported, 2 were there already" in capsys.readouterr().out
    assert read_screened(Workspace(own)).standing["film-1"].verdict is None


@pytest.mark.browser
def test_titles_are_shown_and_not_run(page):
    begin(page)
    assert TITLE in page.locator("#name").text_content()
    assert page.title() == "Screening: 4 clips"
    assert page.locator("img:not(.card img)").count() == 0
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'document.title=1'}))")
    assert page.title() == "Screening: 4 clips"  # its policy runs no other script


@pytest.mark.browser
def test_nothing_is_decided_without_a_name(page):
    page.locator(".card").first.click()
    judge(page, "a")
    assert "Write your name first" in page.locator("#status").text_content()
    assert page.evaluate("document.activeElement.id") == "who"
    assert page.locator("#progress").text_content() == "1 of 4 judged"


@pytest.mark.browser
def test_two_windows_do_not_lose_each_others_decisions(context, page, bundle):
    begin(page)
    other = opened(context, bundle)
    judge(page, "a")
    other.locator(".card").nth(1).click()
    judge(other, "a")
    assert other.locator("#progress").text_content() == "3 of 4 judged"


@pytest.mark.browser
def test_clips_are_filtered_and_judged_with_the_pointer(page):
    page.locator("#who").fill("Bea")
    page.locator("#filter").select_option("todo")
    assert page.locator(".card").count() == 3
    page.locator(".card").nth(2).click()
    page.locator("#choices button").nth(8).click()
    page.locator("#back").click()
    page.locator("#filter").select_option("reject")
    assert page.locator(".card .word").all_text_contents() == ["rejected: bad landmarks"]
    page.locator("#filter").select_option("accept")
    assert page.locator(".card").count() == 1


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_can_be_read(page, scheme):
    """WCAG 2.2 asks for a contrast of 4.5 of all text with its ground."""
    page.emulate_media(color_scheme=scheme)
    begin(page)
    judge(page, "a", "1", "?")
    assert page.evaluate(CONTRAST) >= 4.5
    judge(page, "g")
    assert page.evaluate(CONTRAST) >= 4.5


PLAYED = """() => new Promise((done) => {
  const video = document.getElementById("video");
  video.addEventListener("timeupdate", () => { if (video.currentTime > 0.1) done(); });
})"""
CONTRAST = """() => {
  const parts = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const ground = (element) => {
    const found = parts(getComputedStyle(element).backgroundColor);
    return found.length === 3 || found[3] === 1 ? found : ground(element.parentElement);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let least = 21;
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    const [a, b] = [light(parts(getComputedStyle(element).color)), light(ground(element))];
    least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return least;
}"""
