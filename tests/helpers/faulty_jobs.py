"""Jobs that do what damaged media do to a process: end it, hang in it, eat its memory. Real faults, on purpose."""

import ctypes
import os
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.build.jobs import Job, JobContext, Result
from schemas.analysis import SourcePlan
from schemas.progress import Report


@dataclass(frozen=True, kw_only=True)
class FaultyJob(Job):
    """Notes that it began, misbehaves as often as it is told to, and then does its work."""

    stage = "plan"
    kind = SourcePlan
    notes: str  # a folder
    num_faults: int = 1000

    def compute(self, context: JobContext, report: Report) -> Result:
        del context
        folder = Path(self.notes)
        begun = len(list(folder.iterdir()))
        (folder / f"{begun}-{os.getpid()}").touch()
        if begun < self.num_faults:
            self.misbehave(report)
        return SourcePlan(source_id=self.source.id, shots=(), tracks=(), clips=(), refusals=()), {}

    def misbehave(self, report: Report) -> None:
        """Nothing wrong."""
        del report

    def tries(self) -> int:
        return len(list(Path(self.notes).iterdir()))


class AbortJob(FaultyJob):
    """Ends its process as a decoder's failed assertion does."""

    def misbehave(self, report: Report) -> None:
        del report
        os.abort()


class SegmentationFaultJob(FaultyJob):
    """Reads where nothing is."""

    def misbehave(self, report: Report) -> None:
        del report
        ctypes.string_at(0)


class HangJob(FaultyJob):
    """Never comes back."""

    def misbehave(self, report: Report) -> None:
        for step in range(3600):
            report(self.stage, step, 3600)
            time.sleep(1)


class HogJob(FaultyJob):
    """Takes memory until somebody stops it; by itself it stops at 2 GiB."""

    def misbehave(self, report: Report) -> None:
        del report
        taken = []
        for _ in range(64):
            taken.append(bytearray(os.urandom(1024)) * (32 * 1024))
            time.sleep(0.05)
        time.sleep(30)
