r"""The loader beside litdata (Lightning's streaming format), which gets the same clips in chunks of its own.

Both read whole clips out of large files in shuffled order and give batches of frame pairs with labels, several pairs of
each opened clip; what a user of litdata writes for that is ``Clips`` below, with PyAV and the same exact colours. All
are taken in turns in one process (``training.bench.loader``). litdata is no dependency of this project: it lives in an
environment of its own, which borrows torch and all else from the one in which this project is installed:

    python -m venv OTHER
    OTHER/bin/pip install --no-deps litdata lightning-utilities obstore boto3 botocore s3transfer jmespath tifffile
    PROJECT/bin/python -c "import torch; print(torch.__path__[0].rsplit('/', 1)[0])" > \
        $(OTHER/bin/python -c "import site; print(site.getsitepackages()[0])")/project.pth
    OTHER/bin/python benchmarks/loader_others.py --shards RELEASE [--batches 20] [--workers 1 --step-ms 320]
"""

import argparse
import io
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from litdata import (  # pyright: ignore[reportMissingImports]
    StreamingDataLoader,
    StreamingDataset,
    optimize,
)

from training.bench.loader import measure_loader
from training.data import PairsConfig
from training.data.cache import ShardCache
from training.data.clips import index_tar
from training.data.decode import CONVERSION
from training.data.plan import make_plan
from training.data.shards import Shard

_LABELS = ("pose.npy", "landmarks.npy", "motion.npy", "valid.npy")


def iter_clips(shard: Shard) -> Iterator[dict[str, bytes]]:
    """What the loader reads of every clip of a shard, as a sample of litdata's."""
    descriptor = ShardCache(PairsConfig()).open(shard)
    for entry in index_tar(descriptor):
        members = {suffix: entry.members[suffix] for suffix in ("mp4", "json", *_LABELS)}
        yield {suffix: os.pread(descriptor, length, offset) for suffix, (offset, length) in members.items()}
    os.close(descriptor)


class Clips(StreamingDataset):
    """Some pairs of one clip: frames [pairs, 2, S, S, 3] and labels [pairs, 2, …]."""

    def __init__(self, folder: str, size_px: int, num_pairs: int) -> None:
        super().__init__(folder, shuffle=True, seed=0)
        self._size_px, self._num_pairs = size_px, num_pairs
        self._numbers = np.random.default_rng(0)

    def __getitem__(self, index: Any) -> dict[str, np.ndarray]:
        """Open a clip with PyAV, as one does."""
        sample = super().__getitem__(index)
        labels = {suffix: np.load(io.BytesIO(sample[suffix])) for suffix in _LABELS}
        usable = np.flatnonzero(labels["valid.npy"])
        frames = np.stack([self._numbers.choice(usable, 2, replace=False) for _ in range(self._num_pairs)])
        pictures = np.empty((*frames.shape, self._size_px, self._size_px, 3), np.uint8)
        with av.open(io.BytesIO(sample["mp4"]), "r", format="mp4") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            ticks = round(1 / ((stream.average_rate or 25) * (stream.time_base or Fraction(1, 12800))))
            for position, number in np.ndenumerate(frames):
                container.seek(int(number) * ticks, stream=stream)
                picture = next(container.decode(stream))
                pictures[position] = picture.reformat(self._size_px, self._size_px, "rgb24", **CONVERSION).to_ndarray()
        return {"frames": pictures, **{suffix: label[frames] for suffix, label in labels.items()}}


def main() -> None:
    """Write the clips of some shards as litdata has them, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", required=True)
    for name, default in (("batches", 20), ("batch-size", 32), ("workers", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--step-ms", type=float, default=0.0)
    given = parser.parse_args()
    config = PairsConfig(batch_size=given.batch_size, num_workers=given.workers)
    plan = make_plan(given.shards, config, 1)
    with tempfile.TemporaryDirectory() as folder:
        shards = list(itertools.chain(*plan.shards.by_domain.values()))
        optimize(iter_clips, shards, output_dir=folder, chunk_bytes="64MB", num_workers=1)

        def litdata(num_workers: int) -> Iterator[object]:
            clips = Clips(folder, plan.layout.size_px, config.pairs_per_clip)
            num_clips = config.batch_size // config.pairs_per_clip
            while True:
                yield from StreamingDataLoader(clips, batch_size=num_clips, num_workers=num_workers, drop_last=True)

        figures = measure_loader(
            given.shards, config, num_batches=given.batches, step_ms=given.step_ms, others={"litdata": litdata}
        )
    sys.stdout.write("\n".join(figures.lines()) + "\n")


if __name__ == "__main__":
    main()
