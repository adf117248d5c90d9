"""Where and how jobs run and where weights lie: nothing that a result depends on."""

from typing import Self

from pydantic import Field, model_validator

from schemas.base import Record
from schemas.uri import uri_scheme


class EngineConfig(Record):
    """Where and how jobs run. No key and no release depends on any of it, so it is no part of ``BuildConfig``."""

    workers: int | None = Field(default=None, ge=1)
    """Processes of a local cluster; None: one per core."""
    cpus_per_job: float = Field(default=1.0, gt=0)
    """Cores that a job counts for."""
    gpus_per_job: float = Field(default=0.0, ge=0)
    """Share of a GPU that each job counts for that looks at pictures or sound."""
    num_fetches: int = Field(default=4, ge=1)
    """Downloads at once, of the whole build; hosts are spaced besides."""
    memory_cap_bytes: int = Field(default=4 * 1024**3, ge=256 * 1024**2)
    """Bytes of memory beyond which a worker is ended: analysis measured 0.2 GB at any length, a clip of 20 s 0.5 GB."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Seconds that a job may take, beside ``timeout_per_media_s``."""
    timeout_per_media_s: float = Field(default=20.0, ge=0)
    """Further seconds per second of media that a job reads; analysis measured .2 to .6 of its media's length."""
    fetch_timeout_s: float = Field(default=6 * 3600.0, gt=0)
    """Seconds that a download may take."""
    jobs_per_worker: int = Field(default=200, ge=1)
    """Jobs after which a worker's process is replaced, so that no leak adds up for weeks."""


class WeightsConfig(Record):
    """Where weights files lie. No key and no release depends on it, so it is no part of ``BuildConfig``."""

    dir: str = ""
    """The folder; empty: "weights" in the user's data folder."""
    mirror: str = ""
    """Folder or URI prefix that they are fetched from instead of from their publishers."""

    @model_validator(mode="after")
    def _local(self) -> Self:
        if uri_scheme(self.dir) != "file":
            raise ValueError(f"weights.dir is a folder of this machine, found {self.dir!r}: weights.mirror takes a URI")
        return self
