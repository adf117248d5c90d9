"""Make the frames of pairs and look at them; then a group's figures from what was seen.

What is made is rounded to whole levels before anything looks at it, as a PNG has it: a video encoder would move every
figure. Each picture is looked at once; metrics compare what was seen.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from schemas.errors import CheckpointError
from training.data.stills import Stills
from training.evaluation.metrics.choice import Chosen
from training.evaluation.metrics.config import EvaluationConfig
from training.evaluation.metrics.eyes import Eyes, Sights
from training.evaluation.metrics.lpips import Lpips
from training.evaluation.metrics.table import Views
from training.evaluation.protocols import EvaluationPair, spread
from training.evaluation.results import Direction, Figure, finite
from training.losses.pixels import l1, psnr_db, ssim
from training.recipes.base import Driver, Driving

_GRID_ROWS = 8

Levels = UInt8[Tensor, "B 3 S S"]
Pictures = Float[Tensor, "B 3 S S"]


class GroupSights:
    """What was seen so far of one group: by whose picture, then by look, a list of batches."""

    def __init__(self) -> None:
        self.seen: dict[str, defaultdict[str, list[np.ndarray]]] = {
            name: defaultdict(list) for name in ("made", "real", "source", "beside", "source_beside")
        }
        self.sources: list[int] = []  # number of each made picture's source among those seen
        self.num_sources = 0

    def add(self, name: str, sights: Sights) -> None:
        """Note what was seen of a batch."""
        for look, values in sights.items():
            self.seen[name][look].append(values)

    def joined(self, name: str) -> Sights:
        """All batches in one."""
        return {look: np.concatenate(parts) for look, parts in self.seen[name].items()}


class Evaluator:
    """Makes and measures frames.

    Args:
        driver: what was learned.
        stills: the clips.
        chosen: the metrics.
        config: of the evaluation.
        device: where all networks run.
    """

    def __init__(
        self, driver: Driver, stills: Stills, chosen: Chosen, config: EvaluationConfig, device: torch.device
    ) -> None:
        self._driver, self._stills, self._chosen, self._device = driver, stills, chosen, device
        self._batch_size = config.batch_size
        self._eyes = Eyes(chosen.looks, config.metrics, device)
        self._beside: dict[str, Callable[[Pictures, Pictures], Tensor]] = {"l1": l1, "psnr": psnr_db, "ssim": ssim}
        if "lpips" in chosen.names:
            lpips = config.metrics.lpips
            self._beside["lpips"] = Lpips(lpips.backbone, lpips.file, lpips.heads).to(device)
        self._beside = {name: measure for name, measure in self._beside.items() if name in chosen.names}
        self._rows: list[Levels] = []

    def start(self) -> GroupSights:
        """A new group."""
        return GroupSights()

    @torch.no_grad()
    def add(self, sights: GroupSights, pair: EvaluationPair) -> None:
        """Make the frames of a pair and look at them."""
        source = _as_float(self._stills.frames(pair.source_clip, (pair.source_frame,)), self._device)
        sights.add("source", self._look(source, pair.source_clip, whole=False))
        looked = self._driver.look(source, pair.source_domain)
        shown: Levels | None = None
        for start in range(0, len(pair.driving_frames), self._batch_size):
            numbers = pair.driving_frames[start : start + self._batch_size]
            real = _as_float(self._stills.frames(pair.driving_clip, numbers), self._device)
            motion = self._driver.follow(Driving(pictures=real), pair.driving_domain)
            levels = to_levels(self._driver.render(looked, motion))
            generated = _as_float(levels, self._device)
            sights.add("made", self._look(generated, pair.driving_clip, whole=True))
            sights.add("real", self._look(real, pair.driving_clip, whole=pair.protocol == "same-identity"))
            copied = source.expand(len(numbers), -1, -1, -1)
            for name, pictures in (("beside", generated), ("source_beside", copied)):
                sights.add(
                    name, {metric: measure(pictures, real).cpu().numpy() for metric, measure in self._beside.items()}
                )
            sights.sources += [sights.num_sources] * len(numbers)
            if start <= len(pair.driving_frames) // 2 < start + len(numbers):
                middle = len(pair.driving_frames) // 2 - start
                shown = torch.cat(
                    [to_levels(source), to_levels(real[middle : middle + 1]), levels[middle : middle + 1]]
                )
        sights.num_sources += 1
        if shown is not None:
            self._rows.append(shown.cpu())

    def finish(self, sights: GroupSights, pairs: Sequence[EvaluationPair], driving: str, source: str) -> Direction:
        """The figures of a group."""
        generated, real, sources = (sights.joined(name) for name in ("made", "real", "source"))
        copied = {look: values[sights.sources] for look, values in sources.items()}
        if pairs[0].protocol == "same-identity":
            reference, owners, num_real = real, sights.sources, len(sights.sources)
        else:
            reference, owners, num_real = self._reference(pairs, len(sights.sources))
        own = {look: values[owners] for look, values in sources.items()}
        views = {
            "made": Views(generated, real, copied, reference, sights.joined("beside")),
            "source": Views(copied, real, copied, reference, sights.joined("source_beside")),
            "truth": Views(reference, None, own, reference),
        }
        rows: dict[str, dict[str, Figure]] = {}
        for metric in self._chosen.metrics:
            for row in metric.rows:
                given = views[row]
                if metric.name == "fid" and row == "truth":
                    given = _halves(reference)
                rows.setdefault(row, {})[metric.name] = finite(*metric.figure(given))
        return Direction.model_validate(
            {
                "driving_domain": driving,
                "source_domain": source,
                "num_pairs": len(pairs),
                "num_frames": len(sights.sources),
                "num_real_frames": num_real,
                "rows": rows,
            }
        )

    def grid(self) -> UInt8[np.ndarray, "H W 3"]:
        """Source, driving frame and what was made of them, a row per pair, pairs evenly spread."""
        chosen = spread(range(len(self._rows)), _GRID_ROWS)
        rows = [torch.cat(list(self._rows[index]), dim=2) for index in chosen]
        return torch.cat(rows, dim=1).permute(1, 2, 0).numpy()

    def _look(self, pictures: Pictures, clip_id: str, *, whole: bool) -> Sights:
        face = torch.tensor(self._stills.clips[clip_id].face, device=self._device)
        return self._eyes.look(pictures, face.expand(len(pictures), 4), whole=whole)

    def _reference(self, pairs: Sequence[EvaluationPair], num_made: int) -> tuple[Sights, list[int], int]:
        """As many real frames of the sources' clips as were made, or as there are; with each one's source."""
        first = {pair.source_clip: index for index, pair in reversed(list(enumerate(pairs)))}
        every = [(clip, frame) for clip in sorted(first) for frame in self._stills.clips[clip].seen]
        wanted = spread(range(len(every)), num_made)
        by_clip: defaultdict[str, list[int]] = defaultdict(list)
        for index in wanted:
            clip, frame = every[index]
            by_clip[clip].append(frame)
        seen = GroupSights()
        owners: list[int] = []
        for clip, frames in by_clip.items():
            for start in range(0, len(frames), self._batch_size):
                numbers = tuple(frames[start : start + self._batch_size])
                pictures = _as_float(self._stills.frames(clip, numbers), self._device)
                seen.add("real", self._look(pictures, clip, whole=True))
            owners += [first[clip]] * len(frames)
        return seen.joined("real"), owners, len(wanted)


def to_levels(pictures: Pictures) -> Levels:
    """Whole levels of 255, as a PNG holds them.

    Raises:
        CheckpointError: for pictures that are no numbers.
    """
    if not pictures.isfinite().all():
        raise CheckpointError("the model makes pictures that are no numbers: evaluate an earlier checkpoint")
    return (pictures.float().clamp(0, 1) * 255).round().byte()


def _as_float(levels: Levels, device: torch.device) -> Pictures:
    return levels.to(device).float() / 255


def _halves(sights: Sights) -> Views:
    even = {look: values[::2] for look, values in sights.items()}
    odd = {look: values[1::2] for look, values in sights.items()}
    return Views(even, None, even, odd)
