"""Any frame of any clip of a release by name, for whoever looks at chosen frames instead of learning from many.

Nothing is skipped here: figures over whatever happened to be readable would be figures of another set.
"""

import os
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from schemas.errors import DataError, UsageError
from schemas.uri import redact
from training.data.cache import DamagedShardError, ShardCache
from training.data.clips import ClipInfo, CorruptError, TarEntry, index_tar, open_clip
from training.data.config import PairsConfig
from training.data.decode import FrameDecoder
from training.data.plan import make_plan
from training.data.shards import Shard
from training.data.video import read_packets, read_table


@dataclass(frozen=True, slots=True)
class StillClip:
    """What is known about a clip: its record, the frames that show a face, and where the face is.

    ``face`` is the clip's one face box as xyxy shares of the picture, which may reach beyond it.
    """

    info: ClipInfo
    seen: tuple[int, ...]
    face: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class _ClipAddress:
    shard: Shard
    entry: TarEntry


class Stills:
    """The clips of one split.

    Args:
        release: its folder or URI.
        config: which split and domains, the side of the frames, and how shards travel.

    Raises:
        UsageError: when there is no such release, split or domain.
        DataError: when a shard or a clip cannot be read.
    """

    def __init__(self, release: str, config: PairsConfig) -> None:
        if release.split("?", maxsplit=1)[0].endswith(".tar"):
            raise UsageError(f"{redact(release)} is a shard: name the release's folder, which knows its splits")
        plan = make_plan(release, config, 1)
        self.size_px = plan.layout.size_px
        self.fingerprint = plan.shards.fingerprint()  # of the shards, wherever they lie
        self.clips: dict[str, StillClip] = {}
        self._cache = ShardCache(config)
        self._decoder = FrameDecoder()
        self._addresses: dict[str, _ClipAddress] = {}
        self._descriptors: dict[str, int] = {}
        for shards in plan.shards.by_domain.values():
            for shard in shards:
                self._index(shard)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def frames(self, clip_id: str, numbers: tuple[int, ...]) -> UInt8[Tensor, "N 3 S S"]:
        """RGB frames of a clip.

        Raises:
            DataError: when there is no such clip or frame, or it does not decode.
        """
        if clip_id not in self.clips:
            raise DataError(f"the release has no clip {clip_id} in this split: use the release that the pairs are of")
        clip, address = self.clips[clip_id], self._addresses[clip_id]
        if max(numbers) >= clip.info.num_frames:
            raise DataError(f"{clip_id} has {clip.info.num_frames} frames and no frame {max(numbers)}")
        pixels = np.empty((len(numbers), self.size_px, self.size_px, 3), np.uint8)
        descriptor = self._descriptor(address.shard)
        try:
            packets = read_packets(descriptor, address.entry, read_table(descriptor, address.entry, clip.info), numbers)
            for row, number in enumerate(numbers):
                self._decoder.decode(packets.setup, packets.by_frame[number], pixels[row])
        except CorruptError as error:
            raise _damaged(address.shard, f"{clip_id}: {error}") from error
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def _descriptor(self, shard: Shard) -> int:
        if shard.name not in self._descriptors:
            try:
                self._descriptors[shard.name] = self._cache.open(shard)
            except DamagedShardError as error:
                raise _damaged(shard, error) from error
        return self._descriptors[shard.name]

    def _index(self, shard: Shard) -> None:
        descriptor = self._descriptor(shard)
        try:
            for entry in index_tar(descriptor, shard.num_clips):
                clip = open_clip(descriptor, entry)
                seen = tuple(np.flatnonzero(clip.labels["valid.npy"]).tolist())
                self.clips[entry.key] = StillClip(clip.info, seen, clip.info.plan.face_in_crop())
                self._addresses[entry.key] = _ClipAddress(shard, entry)
        except CorruptError as error:
            raise _damaged(shard, error) from error


def _damaged(shard: Shard, problem: object) -> DataError:
    return DataError(f"{redact(shard.uri)}: {problem}: verify the release, or copy it again")
