"""Compute once, for all clips of a release, what a later stage learns from: tars beside the release's own.

What is written says by its record which checkpoint made it (SHA-256 of the averaged weights), and a stage that builds
on another checkpoint refuses it.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from schemas.errors import DataError, UsageError
from schemas.progress import Report, silent
from schemas.release import SPLITS
from training.data.config import PairsConfig
from training.data.opening import Sample
from training.data.shards import split_domains
from training.data.sidecar import SidecarRecord, SidecarWriter
from training.data.stills import Stills
from training.engine.trained import find_checkpoint, recipe_of
from training.recipes.base import Encoder


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    """What is encoded, by what, and where it goes.

    Attributes:
        checkpoint: one, or the folder of a run, whose best one is taken.
        release: its folder or URI.
        output: folder of the tars and their record.
        batch_size: frames that are looked at at once.
        cache_dir: of fetched shards; None: the user's cache folder.
        recipe: whose checkpoint it has to be; None: whatever it says.
    """

    checkpoint: Path
    release: str
    output: Path
    batch_size: int = 16
    cache_dir: str | None = None
    recipe: str | None = None


def encode(request: EncodeRequest, device: torch.device, report: Report = silent) -> SidecarRecord:
    """Encode every clip of every split; a folder that was begun is gone on with.

    Args:
        request: what, by what, and where.
        device: where networks run.
        report: told of shards done, and of all.

    Returns:
        The record of what was written.

    Raises:
        UsageError: when the checkpoint encodes nothing, or the folder holds what another one made.
        DataError, CheckpointError: when the release or the checkpoint cannot be read.
    """
    checkpoint = find_checkpoint(request.checkpoint)
    encoder = recipe_of(checkpoint, request.recipe).encoder(checkpoint, device)
    loading = PairsConfig(cache_dir=request.cache_dir, size_px=encoder.image_px)
    writer = SidecarWriter(
        request.output,
        request.release,
        checkpoint_sha256=checkpoint.sha256,
        fields=encoder.fields,
        config=loading,
    )
    with ExitStack() as files:
        clips = _Clips(request, encoder, device, loading, files)
        total = len(writer.shards)
        pending = writer.pending()
        for number, shard in enumerate(pending):
            report("encode", total - len(pending) + number, total)
            writer.write(shard, clips.encoded)
    report("encode", total, total)
    return writer.finish()


class _Clips:
    """The clips of all splits, and what is computed of each."""

    def __init__(
        self, request: EncodeRequest, encoder: Encoder, device: torch.device, loading: PairsConfig, files: ExitStack
    ) -> None:
        self._encoder, self._device, self._batch_size = encoder, device, request.batch_size
        known = split_domains(request.release, loading)
        self._splits = [
            files.enter_context(Stills(request.release, loading.model_copy(update={"split": split})))
            for split in SPLITS
            if split in known
        ]
        if not self._splits:
            raise UsageError(f"the release {request.release} holds no clips: there is nothing to encode")

    @torch.no_grad()
    def encoded(self, sample: Sample) -> Mapping[str, np.ndarray]:
        """By field, one row per frame of a clip."""
        stills = next((split for split in self._splits if sample.key in split.clips), None)
        if stills is None:
            raise DataError(f"the clip {sample.key} belongs to no split of the release: verify the release")
        info = stills.clips[sample.key].info
        parts = []
        for start in range(0, info.num_frames, self._batch_size):
            numbers = tuple(range(start, min(start + self._batch_size, info.num_frames)))
            frames = stills.frames(sample.key, numbers).to(self._device).float() / 255
            parts.append(self._encoder.encode(frames, info.domain))
        return {name: torch.cat([part[name] for part in parts]).float().cpu().numpy() for name in self._encoder.fields}
