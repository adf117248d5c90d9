"""How the screening page bears ten thousand clips: its start, a key to the next clip's picture, and memory.

The workspace is synthetic: the clips of a finished one, such as the demo's, again and again under other names and
keys, with real records, their files hard-linked. What a browser paints is timed by itself, from the key's own time to
the first frame of the next clip.

    make demo
    .venv/bin/python -m benchmarks.review out/demo
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright

from pipeline.build.results import load_build, results_of
from pipeline.build.survey import FinishedClip, survey
from pipeline.store.workspace import Workspace
from tests.helpers.screened import Server, start_server, stock_clips

PER_SOURCE = 50
CHROMIUM = os.environ.get("ANITALK_CHROMIUM", "/usr/bin/chromium")


def main() -> None:
    """Make the workspace, screen a part of it in Chromium, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path, help="a finished workspace whose clips are used")
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--decisions", type=int, default=200)
    parser.add_argument("--work", type=Path, help="folder on the same disk as the workspace; a temporary one beside it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.work or given.workspace.resolve().parent) as folder:
        begun = time.perf_counter()
        workspace = multiplied(given.workspace, Path(folder) / "ws", given.clips)
        rows = {"workspace made, s": time.perf_counter() - begun}
        begun = time.perf_counter()
        server = start_server(workspace)
        try:
            rows["server started, s"] = time.perf_counter() - begun
            rows |= screened(server, given.clips, given.decisions)
        finally:
            server.kill()
    print_table(rows, given.clips)


def multiplied(origin: Path, target: Path, num_clips: int) -> Workspace:
    """A workspace of that many clips, which share the files of the few there are."""
    source = Workspace(origin)
    build = load_build(source)
    results = results_of(source, build)
    clips = survey(results, build.sources).clips
    chosen: list[FinishedClip] = [clips[k % len(clips)] for k in range(num_clips)]
    workspace = stock_clips(
        target,
        [(clip.clip, {}) for clip in chosen],
        per_source=PER_SOURCE,
        size_px=build.config.crop.size_px,
        config=build.config,
    )
    copies = survey(results_of(workspace, load_build(workspace)), load_build(workspace).sources).clips
    for copy, like in zip(copies, chosen, strict=True):
        folder = Path(workspace.storage.path(f"results/clip/{copy.key}"))
        for file in Path(source.storage.path(f"results/clip/{like.key}")).iterdir():
            if file.name != "record.json":
                (folder / file.name).hardlink_to(file)
    return workspace


def screened(server: Server, num_clips: int, num_decisions: int) -> dict[str, Any]:
    """Open the page, look through the grid, and decide as fast as the page shows the next clip."""
    process = psutil.Process(server.process.pid)
    rows: dict[str, Any] = {"server's memory at first, MB": _rss_mb(process)}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto(server.address)
        _until(page, "performance.getEntriesByName('next clip painted').length")
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        played = "performance.getEntriesByName('next clip painted').map((e) => e.startTime + e.duration)[0]"
        rows["first paint, ms"] = page.evaluate(paint)
        rows["first clip plays, ms"] = page.evaluate(played)
        _until(page, f"document.getElementById('totals').textContent.includes('of {num_clips} ')")
        rows["all clips listed, ms"] = page.evaluate("performance.now()")
        rows |= _looked_through(page)
        rows["server's memory after the grid, MB"] = _rss_mb(process)
        rows |= _decided(page, num_decisions, "")
        rows["server's memory after these, MB"] = _rss_mb(process)
        rows |= _decided(page, num_decisions, " (again)")
        rows["server's memory after those, MB"] = _rss_mb(process)
        rows["page's memory at the end, MB"] = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
        rows["browser"] = f"Chromium {browser.version}"
        browser.close()
    return rows


def _looked_through(page: Page) -> dict[str, Any]:
    """Scroll the grid from its top to its end; how long its slowest frames take, and how many tiles there ever are."""
    page.keyboard.press("g")
    _until(page, "document.querySelectorAll('.tile img').length > 20")
    looks = page.evaluate(
        """() => new Promise((done) => {
          const box = document.getElementById('tiles');
          const gaps = [];
          let [tiles, before, step] = [0, performance.now(), 0];
          const next = (now) => {
            gaps.push(now - before);
            before = now;
            tiles = Math.max(tiles, document.querySelectorAll('.tile').length);
            box.scrollTop = (box.scrollHeight * ++step) / 240;
            if (step < 240) requestAnimationFrame(next);
            else done({ gaps: gaps.slice(1), tiles });
          };
          requestAnimationFrame(next);
        })"""
    )
    page.wait_for_timeout(1500)
    page.keyboard.press("Home")
    page.keyboard.press("g")
    gaps = looks["gaps"]
    return {
        "grid: frame while scrolling, median ms": statistics.median(gaps),
        "grid: frame while scrolling, 95 % ms": sorted(gaps)[int(0.95 * len(gaps))],
        "grid: tiles at once": looks["tiles"],
    }


def _decided(page: Page, count: int, label: str) -> dict[str, Any]:
    """Decide clip after clip, half a second each: longer than a decision ever takes here, shorter than a person's."""
    page.evaluate("performance.clearMeasures()")
    for number in range(count):
        page.keyboard.press("a" if number % 3 else "6")
        _until(page, f"performance.getEntriesByName('next clip plays').length > {number}")
        page.wait_for_timeout(500)
    rows: dict[str, Any] = {}
    for name in ("painted", "plays"):
        taken = page.evaluate(f"performance.getEntriesByName('next clip {name}').map((e) => e.duration)")
        rows[f"key until the next clip {name}, median ms{label}"] = statistics.median(taken)
        rows[f"key until the next clip {name}, 95 % ms{label}"] = sorted(taken)[int(0.95 * len(taken))]
    return rows


def _until(page: Page, script: str) -> None:
    """Asked again and again: the page's policy forbids what Playwright's own waiting needs."""
    end = time.monotonic() + 60
    while not page.evaluate(script):
        if time.monotonic() > end:
            raise TimeoutError(f"not within a minute: {script}")
        page.wait_for_timeout(10)


def _rss_mb(process: psutil.Process) -> float:
    return process.memory_info().rss / 1e6


def print_table(rows: dict[str, Any], num_clips: int) -> None:
    """Print what was measured, and on what."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    print(f"{num_clips} clips on {cpu}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name, value in rows.items():
        print(f"  {name:<58} {value if isinstance(value, str | int) else f'{value:.1f}'}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
