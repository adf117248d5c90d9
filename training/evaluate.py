"""Measure a trained model on the pairs of a protocol, beside real frames and beside the source itself.

What is made is rounded to whole levels before anything looks at it, as a PNG has it: a video encoder would move every
figure. Each picture is looked at once; metrics compare what was seen.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from schemas.base import content_hash
from schemas.release import Split
from training.data.config import PairsConfig
from training.data.stills import Stills
from training.errors import UsageError
from training.metrics.choice import Chosen, choose_metrics
from training.metrics.config import EvaluationConfig
from training.metrics.eyes import Eyes, Sights
from training.metrics.lpips import Lpips
from training.metrics.pictures import l1, psnr_db, ssim
from training.metrics.table import Views
from training.models.anytalk import AnyTalk, Source
from training.models.motion import Motion
from training.protocols import Candidate, Draw, EvaluationPair, Protocol, draw_pairs, read_pairs, spread, write_pairs
from training.results import Figure, Group, Measured, MetricNote, Results, finite, table
from training.trained import find_checkpoint, load_anytalk

RESULTS_FILE, TABLE_FILE, PAIRS_FILE, GRID_FILE = "results.json", "results.md", "pairs.jsonl", "pictures.png"
_GRID_ROWS = 8

Levels = UInt8[Tensor, "B 3 S S"]
Pictures = Float[Tensor, "B 3 S S"]


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What to measure, on what, and where it goes.

    Attributes:
        checkpoint: one, or the folder of a run.
        release: its folder or URI.
        metrics: names; empty for all of the protocol.
        pairs: a list of pairs to measure instead of drawing some.
        driving_domains: to draw from; empty for all.
        source_domains: likewise.
    """

    checkpoint: Path
    release: str
    protocol: Protocol
    output: Path
    config: EvaluationConfig
    split: Split = "test"
    metrics: Sequence[str] = ()
    pairs: Path | None = None
    driving_domains: tuple[str, ...] = ()
    source_domains: tuple[str, ...] = ()


def evaluate(
    request: EvaluationRequest, device: torch.device, tell: Callable[[int, int], None] = lambda _done, _all: None
) -> Results:
    """Make the frames of all pairs, measure them, and write table, record, pairs and pictures.

    Args:
        request: what, on what, and where.
        device: where networks run.
        tell: called with the number of pairs done, and of all.

    Raises:
        UsageError: for what the user gave wrong, before the first frame.
        DataError, CheckpointError: when the release or the checkpoint cannot be read.
    """
    config = request.config
    if request.pairs and (request.driving_domains or request.source_domains):
        raise UsageError("--pairs says what drives what already: leave --driving-domain and --source-domain out")
    checkpoint = find_checkpoint(request.checkpoint)
    model = load_anytalk(checkpoint, device)
    chosen = choose_metrics(request.protocol, request.metrics, config.metrics, model.config.image_px)
    loading = PairsConfig(split=request.split, size_px=model.config.image_px, cache_dir=config.cache_dir)
    with Stills(request.release, loading) as stills:
        pairs = _pairs(request, stills)
        about = _measured(request, checkpoint, stills, pairs, chosen)
        _check_output(request.output, about)
        bench = Bench(model, stills, chosen, config, device)
        groups: list[Group] = []
        done = 0
        for (driving, source), own in _by_group(pairs).items():
            tally = bench.start()
            for pair in own:
                bench.add(tally, pair)
                done += 1
                tell(done, len(pairs))
            groups.append(bench.finish(tally, own, driving, source))
    results = Results(measured=about, groups=tuple(groups))
    _write(request.output, results, pairs, bench.grid())
    return results


class Tally:
    """What was seen so far of one group: by whose picture, then by look, a list of batches."""

    def __init__(self) -> None:
        self.seen: dict[str, defaultdict[str, list[np.ndarray]]] = {
            name: defaultdict(list) for name in ("made", "real", "source", "beside", "source_beside")
        }
        self.sources: list[int] = []  # place of each made picture's source among those seen
        self.num_sources = 0

    def add(self, name: str, sights: Sights) -> None:
        """Note what was seen of a batch."""
        for look, values in sights.items():
            self.seen[name][look].append(values)

    def sights(self, name: str) -> Sights:
        """All batches in one."""
        return {look: np.concatenate(parts) for look, parts in self.seen[name].items()}


class Bench:
    """Makes and measures frames.

    Args:
        model: in evaluation mode.
        stills: the clips.
        chosen: the metrics.
        config: of the evaluation.
        device: where all networks run.
    """

    def __init__(
        self, model: AnyTalk, stills: Stills, chosen: Chosen, config: EvaluationConfig, device: torch.device
    ) -> None:
        self._model, self._stills, self._chosen, self._device = model, stills, chosen, device
        self._batch_size = config.batch_size
        self._eyes = Eyes(chosen.looks, config.metrics, device)
        self._beside: dict[str, Callable[[Pictures, Pictures], Tensor]] = {"l1": l1, "psnr": psnr_db, "ssim": ssim}
        if "lpips" in chosen.names:
            lpips = config.metrics.lpips
            self._beside["lpips"] = Lpips(lpips.backbone, lpips.file, lpips.heads).to(device)
        self._beside = {name: measure for name, measure in self._beside.items() if name in chosen.names}
        self._rows: list[Levels] = []

    def start(self) -> Tally:
        """A new group."""
        return Tally()

    @torch.no_grad()
    def add(self, tally: Tally, pair: EvaluationPair) -> None:
        """Make the frames of a pair and look at them."""
        source = _as_float(self._stills.frames(pair.source_clip, (pair.source_frame,)), self._device)
        tally.add("source", self._look(source, pair.source_clip))
        looked = self._model.look(source)
        shown: Levels | None = None
        for start in range(0, len(pair.driving_frames), self._batch_size):
            numbers = pair.driving_frames[start : start + self._batch_size]
            real = _as_float(self._stills.frames(pair.driving_clip, numbers), self._device)
            levels = to_levels(moved(self._model, looked, real))
            made = _as_float(levels, self._device)
            tally.add("made", self._look(made, pair.driving_clip))
            tally.add("real", self._look(real, pair.driving_clip))
            copied = source.expand(len(numbers), -1, -1, -1)
            for name, pictures in (("beside", made), ("source_beside", copied)):
                tally.add(name, {one: measure(pictures, real).cpu().numpy() for one, measure in self._beside.items()})
            tally.sources += [tally.num_sources] * len(numbers)
            if start <= len(pair.driving_frames) // 2 < start + len(numbers):
                middle = len(pair.driving_frames) // 2 - start
                shown = torch.cat([to_levels(source), to_levels(real[middle : middle + 1]), levels[middle : middle + 1]])
        tally.num_sources += 1
        if shown is not None:
            self._rows.append(shown.cpu())

    def finish(self, tally: Tally, pairs: Sequence[EvaluationPair], driving: str, source: str) -> Group:
        """The figures of a group."""
        made, real, sources = (tally.sights(name) for name in ("made", "real", "source"))
        copied = {look: values[tally.sources] for look, values in sources.items()}
        if pairs[0].protocol == "same-identity":
            reference, owners, num_real = real, tally.sources, len(tally.sources)
        else:
            reference, owners, num_real = self._reference(pairs, len(tally.sources))
        own = {look: values[owners] for look, values in sources.items()}
        views = {
            "made": Views(made, real, copied, reference, tally.sights("beside")),
            "source": Views(copied, real, copied, reference, tally.sights("source_beside")),
            "truth": Views(reference, None, own, reference),
        }
        rows: dict[str, dict[str, Figure]] = {}
        for metric in self._chosen.metrics:
            for row in metric.rows:
                given = views[row]
                if metric.name == "fid" and row == "truth":
                    given = _halves(reference)
                rows.setdefault(row, {})[metric.name] = finite(*metric.figure(given))
        return Group.model_validate(
            {
                "driving_domain": driving,
                "source_domain": source,
                "num_pairs": len(pairs),
                "num_frames": len(tally.sources),
                "num_real_frames": num_real,
                "rows": rows,
            }
        )

    def grid(self) -> UInt8[np.ndarray, "H W 3"]:
        """Source, driving frame and what was made of them, a row per pair, pairs evenly spread."""
        chosen = spread(range(len(self._rows)), _GRID_ROWS)
        rows = [torch.cat(list(self._rows[index]), dim=2) for index in chosen]
        return torch.cat(rows, dim=1).permute(1, 2, 0).numpy()

    def _look(self, pictures: Pictures, clip_id: str) -> Sights:
        face = torch.tensor(self._stills.takes[clip_id].face, device=self._device)
        return self._eyes.look(pictures, face.expand(len(pictures), 4))

    def _reference(self, pairs: Sequence[EvaluationPair], num_made: int) -> tuple[Sights, list[int], int]:
        """As many real frames of the sources' clips as were made, or as there are; with each one's source."""
        first = {pair.source_clip: index for index, pair in reversed(list(enumerate(pairs)))}
        every = [(clip, frame) for clip in sorted(first) for frame in self._stills.takes[clip].seen]
        wanted = spread(range(len(every)), num_made)
        by_clip: defaultdict[str, list[int]] = defaultdict(list)
        for index in wanted:
            clip, frame = every[index]
            by_clip[clip].append(frame)
        seen = Tally()
        owners: list[int] = []
        for clip, frames in by_clip.items():
            for start in range(0, len(frames), self._batch_size):
                numbers = tuple(frames[start : start + self._batch_size])
                seen.add("real", self._look(_as_float(self._stills.frames(clip, numbers), self._device), clip))
            owners += [first[clip]] * len(frames)
        return seen.sights("real"), owners, len(wanted)


def moved(model: AnyTalk, source: Source, frames: Pictures) -> Pictures:
    """One source, moved as each of some frames is: x = R x_c + t + δ with the frame's motion (absolute)."""
    count = len(frames)
    many = Source(
        source.features.expand(count, *[-1] * (source.features.ndim - 1)),
        type(source.canonical)(*(one.expand(count, *[-1] * (one.ndim - 1)) for one in source.canonical)),
        Motion(*(one.expand(count, *[-1] * (one.ndim - 1)) for one in source.motion)),
        source.points.expand(count, -1, -1),
    )
    return model.render(many, model.points(many.canonical.points, model.follow(frames)))


def to_levels(pictures: Pictures) -> Levels:
    """Whole levels of 255, as a PNG holds them."""
    return (pictures.float().clamp(0, 1) * 255).round().byte()


def _as_float(levels: Levels, device: torch.device) -> Pictures:
    return levels.to(device).float() / 255


def _halves(sights: Sights) -> Views:
    even = {look: values[::2] for look, values in sights.items()}
    odd = {look: values[1::2] for look, values in sights.items()}
    return Views(even, None, even, odd)


# ---- what is measured ----------------------------------------------------------------------------------------------


def _pairs(request: EvaluationRequest, stills: Stills) -> list[EvaluationPair]:
    if request.pairs is not None:
        return read_pairs(request.pairs, request.protocol)
    candidates = [
        Candidate(name, take.info.domain, take.info.identity_id, take.seen) for name, take in stills.takes.items()
    ]
    draw = Draw(
        protocol=request.protocol,
        seed=request.config.seed,
        num_pairs=request.config.num_pairs,
        num_frames=request.config.num_frames,
        driving_domains=request.driving_domains,
        source_domains=request.source_domains,
    )
    return draw_pairs(candidates, draw)


def _by_group(pairs: Sequence[EvaluationPair]) -> dict[tuple[str, str], list[EvaluationPair]]:
    found: defaultdict[tuple[str, str], list[EvaluationPair]] = defaultdict(list)
    for pair in pairs:
        found[pair.group].append(pair)
    return dict(sorted(found.items()))


def _measured(
    request: EvaluationRequest, checkpoint: Path, stills: Stills, pairs: Sequence[EvaluationPair], chosen: Chosen
) -> Measured:
    return Measured(
        checkpoint=checkpoint.name,
        checkpoint_sha256=_sha256(checkpoint / "average.safetensors"),
        release=request.release.rstrip("/").rsplit("/", 1)[-1],
        shards=stills.fingerprint,
        split=request.split,
        protocol=request.protocol,
        seed=pairs[0].seed,
        pairs_sha256=content_hash([pair.model_dump(mode="json") for pair in pairs]),
        image_px=stills.size_px,
        metrics=tuple(
            MetricNote(name=one.name, verified=chosen.verified[one.name], weights=dict(_sums(chosen, one.weights)))
            for one in chosen.metrics
        ),
    )


def _sums(chosen: Chosen, settings: Sequence[str]) -> Iterator[tuple[str, str]]:
    for setting in settings:
        yield setting, _sha256(chosen.files[setting])


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# ---- what is left --------------------------------------------------------------------------------------------------


def _check_output(output: Path, about: Measured) -> None:
    """Refuse to write over the results of another evaluation."""
    path = output / RESULTS_FILE
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output: {output} is no folder")
    if not path.is_file():
        return
    try:
        before = Results.model_validate_json(path.read_bytes()).measured
    except ValidationError:
        before = None
    if before != about:
        raise UsageError(f"{output} holds the results of another evaluation: name another folder")


def _write(output: Path, results: Results, pairs: Sequence[EvaluationPair], grid: UInt8[np.ndarray, "H W 3"]) -> None:
    """The record last: where it is, the rest is whole."""
    output.mkdir(parents=True, exist_ok=True)
    write_pairs(output / PAIRS_FILE, pairs)
    Image.fromarray(grid).save(output / GRID_FILE, optimize=False)
    (output / TABLE_FILE).write_text(table(results), encoding="utf-8")
    aside = output / f".{RESULTS_FILE}.partial"
    aside.write_text(f"{results.model_dump_json(indent=1)}\n", encoding="utf-8")
    aside.replace(output / RESULTS_FILE)
