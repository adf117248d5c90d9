"""Measure a trained model on the pairs of a protocol, beside real frames and beside the source itself."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from pydantic import ValidationError

from schemas.base import content_hash
from schemas.errors import UsageError
from schemas.files import sha256_of_file, write_atomically
from schemas.progress import Report, silent
from schemas.release import Split
from training.data.config import PairsConfig
from training.data.stills import Stills
from training.engine.trained import SavedCheckpoint, find_checkpoint, recipe_of
from training.evaluation.measuring import Evaluator
from training.evaluation.metrics.choice import Chosen, choose_metrics
from training.evaluation.metrics.config import EvaluationConfig
from training.evaluation.protocols import (
    EvaluationPair,
    PairDraw,
    PairedClip,
    Protocol,
    draw_pairs,
    read_pairs,
    write_pairs,
)
from training.evaluation.results import Direction, EvaluationResults, Measured, MetricNote, table
from training.recipes.base import Driver

RESULTS_FILE, TABLE_FILE, PAIRS_FILE, GRID_FILE = "results.json", "results.md", "pairs.jsonl", "pictures.png"


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
        recipe: whose checkpoint it has to be; None: whatever it says.
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
    recipe: str | None = None


def evaluate(request: EvaluationRequest, device: torch.device, report: Report = silent) -> EvaluationResults:
    """Make the frames of all pairs, measure them, and write table, record, pairs and pictures.

    Args:
        request: what, on what, and where.
        device: where networks run.
        report: told the number of pairs done, and of all.

    Raises:
        UsageError: for what the user gave wrong, before the first frame.
        DataError, CheckpointError: when the release or the checkpoint cannot be read.
    """
    config = request.config
    if request.pairs and (request.driving_domains or request.source_domains):
        raise UsageError("--pairs says what drives what already: leave --driving-domain and --source-domain out")
    checkpoint = find_checkpoint(request.checkpoint)
    recipe = recipe_of(checkpoint, request.recipe)
    driver = recipe.driver(checkpoint, device)
    _check_needs(driver)
    chosen = choose_metrics(request.protocol, request.metrics, config.metrics, driver.image_px)
    loading = PairsConfig(split=request.split, size_px=driver.image_px, cache_dir=config.cache_dir)
    with Stills(request.release, loading) as stills:
        pairs = _pairs(request, stills)
        about = _measured(request, checkpoint, stills, pairs, chosen)
        _check_output(request.output, about)
        evaluator = Evaluator(driver, stills, chosen, config, device)
        directions: list[Direction] = []
        done = 0
        for (driving, source), own in _by_group(pairs).items():
            sights = evaluator.start()
            for pair in own:
                evaluator.add(sights, pair)
                done += 1
                report("pairs", done, len(pairs))
            directions.append(evaluator.finish(sights, own, driving, source))
    results = EvaluationResults(measured=about, groups=tuple(directions))
    _write(request.output, results, table(results, recipe.literature), pairs, evaluator.grid())
    return results


def _check_needs(driver: Driver) -> None:
    missing = [name for name in driver.needs if name != "pictures"]
    if missing:
        raise UsageError(f"this model is moved by {' and '.join(missing)}: only models moved by pictures are evaluated")


# ---- what is measured ----------------------------------------------------------------------------------------------


def _pairs(request: EvaluationRequest, stills: Stills) -> list[EvaluationPair]:
    if request.pairs is not None:
        return _listed(request.pairs, request.protocol, stills)
    clips = [
        PairedClip(name, clip.info.domain, clip.info.identity_id, clip.seen) for name, clip in stills.clips.items()
    ]
    draw = PairDraw(
        protocol=request.protocol,
        seed=request.config.seed,
        num_pairs=request.config.num_pairs,
        num_frames=request.config.num_frames,
        driving_domains=request.driving_domains,
        source_domains=request.source_domains,
    )
    return draw_pairs(clips, draw)


def _listed(path: Path, protocol: Protocol, stills: Stills) -> list[EvaluationPair]:
    """The pairs of a list, all of whose frames are there."""
    pairs = read_pairs(path, protocol)
    for pair in pairs:
        for clip, last in ((pair.source_clip, pair.source_frame), (pair.driving_clip, max(pair.driving_frames))):
            if clip not in stills.clips or last >= stills.clips[clip].info.num_frames:
                raise UsageError(
                    f"--pairs: frame {last} of {clip} is not in this split of the release: name those that {path} is of"
                )
    return pairs


def _by_group(pairs: Sequence[EvaluationPair]) -> dict[tuple[str, str], list[EvaluationPair]]:
    groups: defaultdict[tuple[str, str], list[EvaluationPair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.group].append(pair)
    return dict(sorted(groups.items()))


def _measured(
    request: EvaluationRequest,
    checkpoint: SavedCheckpoint,
    stills: Stills,
    pairs: Sequence[EvaluationPair],
    chosen: Chosen,
) -> Measured:
    return Measured(
        checkpoint=checkpoint.path.name,
        checkpoint_sha256=checkpoint.sha256,
        release=request.release.rstrip("/").rsplit("/", 1)[-1],
        shards=stills.fingerprint,
        split=request.split,
        protocol=request.protocol,
        seed=pairs[0].seed,
        pairs_sha256=content_hash([pair.model_dump(mode="json") for pair in pairs]),
        image_px=stills.size_px,
        metrics=tuple(
            MetricNote(
                name=metric.name, verified=chosen.verified[metric.name], weights=dict(_sums(chosen, metric.weights))
            )
            for metric in chosen.metrics
        ),
    )


def _sums(chosen: Chosen, settings: Sequence[str]) -> Iterator[tuple[str, str]]:
    for setting in settings:
        yield setting, sha256_of_file(chosen.files[setting])


# ---- what is left --------------------------------------------------------------------------------------------------


def _check_output(output: Path, about: Measured) -> None:
    """Refuse to write over the results of another evaluation."""
    path = output / RESULTS_FILE
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output: {output} is no folder")
    if not path.is_file():
        return
    try:
        before = EvaluationResults.model_validate_json(path.read_bytes()).measured
    except ValidationError:
        before = None
    if before != about:
        raise UsageError(f"{output} holds the results of another evaluation: name another folder")


def _write(
    output: Path,
    results: EvaluationResults,
    text: str,
    pairs: Sequence[EvaluationPair],
    grid: UInt8[np.ndarray, "H W 3"],
) -> None:
    """The record last: where it is, the rest is whole."""
    output.mkdir(parents=True, exist_ok=True)
    write_pairs(output / PAIRS_FILE, pairs)
    Image.fromarray(grid).save(output / GRID_FILE, optimize=False)
    (output / TABLE_FILE).write_text(text, encoding="utf-8")
    write_atomically(output / RESULTS_FILE, f"{results.model_dump_json(indent=1)}\n".encode())
