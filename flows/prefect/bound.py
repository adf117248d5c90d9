"""Run a command that ends with whoever started it: ``python -m flows.prefect.bound COMMAND …``.

A worker that is killed can ask nobody to end, and a training that goes on alone would write where the next one begins.
Linux tells the command itself (SIGTERM); elsewhere it goes on.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(command: list[str]) -> None:
    """Become the command."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    os.execvp(command[0], command)  # noqa: S606 - what the caller asked for, without a shell


if __name__ == "__main__":
    main(sys.argv[1:])
