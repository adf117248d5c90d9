"""Keep what a run needs to go on: weights, running averages, optimisers, random numbers and the loader's place.

A checkpoint is a folder of safetensors and JSON, so that reading one never runs anybody's program. It is written
beside its place and moved there when complete: a folder that is there is whole.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from schemas.base import Record
from schemas.errors import CheckpointError
from schemas.files import sync_folder
from training.recipes.base import Score
from training.recipes.registry import DEFAULT_RECIPE

VERSION = 1
AVERAGE = "average"  # the module that is evaluated and used, by whose file a checkpoint is known
_SCORE = Score("score")
_NAME = re.compile(r"step-(\d{9})")
_STATE = "state.json"
_R = TypeVar("_R", bound=Record)


@dataclass(frozen=True, slots=True)
class Parts:
    """What goes into a checkpoint and comes back, by name."""

    modules: Mapping[str, nn.Module]
    optimisers: Mapping[str, Optimizer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose checkpoints they are.

    Attributes:
        recipe: its name.
        score: by which the best one is chosen.
        made_from: SHA-256 by what it is of: ``checkpoint``, whose weights the run began with or builds on, and
            ``sidecar``, the checkpoint that wrote the latents it learns from.
    """

    recipe: str = DEFAULT_RECIPE
    score: Score = _SCORE
    made_from: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Team:
    """The processes that write one checkpoint together."""

    rank: int = 0
    size: int = 1
    barrier: Callable[[], object] = lambda: None


class Store:
    """The checkpoints of one run.

    Args:
        folder: where they lie, ``step-000001000`` and so on.
        keep_last: how many of the newest stay; the best one stays beside them.
        team: the processes that save together.
        origin: what is written into each.
    """

    def __init__(
        self, folder: Path, keep_last: int = 3, team: Team | None = None, origin: Origin | None = None
    ) -> None:
        self.folder = folder
        self.keep_last = keep_last
        self.team = team or Team()
        self.origin = origin or Origin()

    def save(
        self,
        step: int,
        parts: Parts,
        config: Record,
        progress: Mapping[str, Any],
        loader: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the checkpoint of ``step``; every process of the team calls this.

        Args:
            step: number of the last step taken.
            parts: the same in every process.
            config: what the modules were built from.
            progress: what else the run knows, fit for JSON; ``score`` decides which is best.
            loader: this process's place in the data, fit for JSON.
        """
        path = self.folder / f"step-{step:09d}"
        aside = self.folder / f".{path.name}.partial"
        if self.team.rank == 0:
            self._clear()
            aside.mkdir(parents=True)
        self.team.barrier()
        rank = self.team.rank
        _write_tensors(aside / f"rank-{rank}.safetensors", _random_states())
        _write_json(aside / f"rank-{rank}.json", {"loader": loader})
        if rank == 0:
            state = {"step": step, "processes": self.team.size, "progress": dict(progress)}
            _write_parts(aside, parts, state | _described(self.origin, config))
        self.team.barrier()
        if rank == 0:
            _publish(aside, path)
            self._prune()
        self.team.barrier()
        return path

    def latest(self) -> Path | None:
        """The newest checkpoint; None where there is none."""
        return max(self._all(), default=None)

    def best(self) -> Path | None:
        """The one with the best score, the newest of equals; None where none has a score."""
        scored = [(score, path) for path in self._all() if (score := _score(path)) is not None]
        return max(scored)[1] if scored else None

    def _all(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [path for path in sorted(self.folder.iterdir()) if _NAME.fullmatch(path.name)]

    def _clear(self) -> None:
        """Remove what a run that was ended midway left behind."""
        for path in self.folder.glob(".step-*"):
            shutil.rmtree(path)

    def _prune(self) -> None:
        kept = {*self._all()[-self.keep_last :], self.best()}
        for path in self._all():
            if path not in kept:
                # Renamed first, so that a half deleted checkpoint is never taken for one.
                gone = path.with_name(f".{path.name}.gone")
                path.replace(gone)
                shutil.rmtree(gone)


def restore(path: Path, parts: Parts, config: Record, team: Team | None = None) -> tuple[dict[str, Any], Any]:
    """Put everything back: modules, optimisers and this process's random numbers.

    Args:
        path: of the checkpoint.
        parts: built from ``config``, on their devices.
        config: must be the checkpoint's.
        team: must have the checkpoint's size.

    Returns:
        Progress with ``step`` in it, and this process's place in the data as the loader gave it.

    Raises:
        CheckpointError: when it is damaged, of another configuration, or of another number of processes.
    """
    team = team or Team()
    check_config(path, config)
    state = read_state(path)
    if state["processes"] != team.size:
        raise CheckpointError(
            f"{path} was saved by {state['processes']} processes, and this run has {team.size}: go on with as many, "
            "or begin from its weights alone"
        )
    for name, module in parts.modules.items():
        fill(module, path, name)
    for name, optimiser in parts.optimisers.items():
        _fill_optimiser(optimiser, path, name, state["optimisers"][name])
    _set_random_states(_read_tensors(path / f"rank-{team.rank}.safetensors"))
    loader = _read_json(path / f"rank-{team.rank}.json")["loader"]
    return {**state["progress"], "step": state["step"]}, loader


def read_config(path: Path, kind: type[_R]) -> _R:
    """What the modules of a checkpoint were built from.

    Raises:
        CheckpointError: when it is none of ours, or of another version of the record.
    """
    try:
        return kind.model_validate(read_state(path)["config"])
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise CheckpointError(
            f"{path} has settings this version cannot read, such as {where}: use the version that wrote it"
        ) from error


def check_config(path: Path, config: Record) -> None:
    """Refuse a checkpoint whose modules were built from other settings, also where their shapes agree.

    Raises:
        CheckpointError: naming the first setting that differs.
    """
    there, here = read_state(path)["config"], config.model_dump(mode="json")
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise CheckpointError(
                f"{path} was made with {name} = {there.get(name)}, and this run has {here.get(name)}: "
                "go on with the same, or begin a new run"
            )


def read_state(path: Path) -> dict[str, Any]:
    """The step, configuration and progress of a checkpoint.

    Raises:
        CheckpointError: when it is none of ours.
    """
    if not (path / _STATE).is_file():
        raise CheckpointError(
            f"{path} is no checkpoint of this trainer (a folder with {_STATE}): other formats are not read, as they "
            "may run a program of their author's"
        )
    state = _read_json(path / _STATE)
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise CheckpointError(
            f"{path} is not of checkpoint version {VERSION}: use the version of anitalk that wrote it"
        )
    return state


def fill(module: nn.Module, path: Path, name: str) -> None:
    """Put the checkpoint's tensors ``name`` into a module of the same shapes.

    Raises:
        CheckpointError: naming the first tensor that differs.
    """
    tensors = _read_tensors(path / f"{name}.safetensors")
    wanted = {tensor: tuple(value.shape) for tensor, value in module.state_dict().items()}
    shapes = {tensor: tuple(value.shape) for tensor, value in tensors.items()}
    wrong = sorted(tensor for tensor in wanted.keys() | shapes.keys() if wanted.get(tensor) != shapes.get(tensor))
    if wrong:
        raise CheckpointError(
            f"{path / name}.safetensors does not fit: {len(wrong)} tensors differ, such as {wrong[0]} "
            f"(expected {wanted.get(wrong[0], 'none')}, found {shapes.get(wrong[0], 'none')})"
        )
    module.load_state_dict(tensors)


# ---- writing -------------------------------------------------------------------------------------------------------


def _described(origin: Origin, config: Record) -> dict[str, Any]:
    return {
        "version": VERSION,
        "recipe": origin.recipe,
        "made_from": dict(origin.made_from),
        "higher_is_better": origin.score.higher_is_better,
        "config": config.model_dump(mode="json"),
    }


def _write_parts(aside: Path, parts: Parts, state: dict[str, Any]) -> None:
    for name, module in parts.modules.items():
        _write_tensors(aside / f"{name}.safetensors", module.state_dict())
    groups = {}
    for name, optimiser in parts.optimisers.items():
        moments = optimiser.state_dict()
        flat = {f"{index}.{key}": value for index, values in moments["state"].items() for key, value in values.items()}
        _write_tensors(aside / f"{name}.safetensors", flat)
        groups[name] = moments["param_groups"]
    _write_json(aside / _STATE, {**state, "optimisers": groups})


def _publish(aside: Path, path: Path) -> None:
    if path.exists():  # of an earlier run from the same checkpoint
        gone = path.with_name(f".{path.name}.gone")
        path.replace(gone)
        shutil.rmtree(gone)
    sync_folder(aside)
    aside.replace(path)
    sync_folder(path.parent)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    sync_folder(path)  # which does the same for a file


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False), encoding="utf-8")
    sync_folder(path)


# ---- reading -------------------------------------------------------------------------------------------------------


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is missing or damaged: go on from an earlier checkpoint") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is missing or damaged: go on from an earlier checkpoint") from error


def _score(path: Path) -> float | None:
    """What is best is highest, whichever way the score itself goes."""
    state = read_state(path)
    score = state["progress"].get("score")
    return score if score is None or state.get("higher_is_better", True) else -score


def _fill_optimiser(optimiser: Optimizer, path: Path, name: str, groups: list[dict[str, Any]]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _read_tensors(path / f"{name}.safetensors").items():
        index, _, slot = key.partition(".")
        state.setdefault(int(index), {})[slot] = value
    count = sum(len(group["params"]) for group in optimiser.param_groups)
    if sum(len(group["params"]) for group in groups) != count:
        raise CheckpointError(f"{path / name}.safetensors does not fit: it is of another number of parameters")
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else states


def _set_random_states(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
