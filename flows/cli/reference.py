"""Print the reference pages: every command with its options, and every setting with its default.

``python -m flows.cli.reference --write`` writes ``docs/commands.md``, ``docs/settings.md`` and the table of commands in
``README.md``; ``--check`` compares them and ends with exit code 1 where one is out of date. They are read from the
command line and the settings themselves, so that a page cannot say anything else than the program does.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.cli.reference_commands import command_pages, command_table
from flows.cli.reference_settings import settings_page

ROOT = Path(__file__).resolve().parents[2]
EXIT_DIFFERENT, EXIT_USAGE = 1, 2
_TABLE = re.compile(r"(<!-- commands: begin[^>]*-->\n).*?(<!-- commands: end -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Page:
    """A file of the repository and what it must hold."""

    path: Path
    text: str

    def difference(self) -> list[str]:
        """Lines of a unified diff from the file to what it must hold; empty where they are equal."""
        present = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        name = str(self.path.relative_to(ROOT))
        return list(difflib.unified_diff(present.splitlines(), self.text.splitlines(), name, "printed", lineterm=""))


def pages() -> Iterator[Page]:
    """Every page that is printed, in full; of the README the table of commands only is replaced.

    Raises:
        FileNotFoundError: outside a checkout, where there are no pages.
        ValueError: when the README has no place for the table.
    """
    yield Page(ROOT / "docs/commands.md", command_pages())
    yield Page(ROOT / "docs/settings.md", settings_page())
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if not _TABLE.search(readme):
        raise ValueError("README.md has no line '<!-- commands: begin … -->' with '<!-- commands: end -->' after it")
    table = command_table()
    yield Page(ROOT / "README.md", _TABLE.sub(lambda match: f"{match[1]}\n{table}\n{match[2]}", readme))


def main(arguments: list[str] | None = None) -> int:
    """Write the pages, or compare them with what is there; 1 where one differs."""
    parser = argparse.ArgumentParser(prog="python -m flows.cli.reference", description=__doc__)
    action: Any = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write the pages")
    action.add_argument("--check", action="store_true", help="exit code 1 where a page is out of date")
    options = parser.parse_args(arguments)
    if not (ROOT / "docs").is_dir():
        sys.stderr.write(f"{ROOT} has no folder 'docs': run this in a checkout\n")
        return EXIT_USAGE
    outdated = [(page, lines) for page in pages() if (lines := page.difference())]
    for page, lines in outdated:
        if options.write:
            page.path.write_text(page.text, encoding="utf-8")
            sys.stdout.write(f"written: {page.path.relative_to(ROOT)}\n")
        else:
            sys.stderr.write("\n".join(lines) + "\n")
    if options.check and outdated:
        sys.stderr.write("out of date: run 'make docs' and commit what it writes\n")
        return EXIT_DIFFERENT
    return 0


if __name__ == "__main__":
    sys.exit(main())
