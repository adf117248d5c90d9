"""The ``anitalk`` command, a file per command.

In: arguments. Out: text, files and an exit code.
"""

from flows.cli.application import app, main, run

__all__ = ["app", "main", "run"]
