"""One process of a run for tests, alone or under torchrun: its share of every batch, its figures to a file.

Called with a folder and a number of steps.
"""

import json
import sys
from pathlib import Path

import torch

from tests.helpers.training_pairs import pairs
from tests.helpers.training_runs import small_config
from training.engine.launch import start
from training.engine.loop import Trainer
from training.recipes.anytalk.learner import AnyTalkLearner
from training.recipes.base import StageConfig

GLOBAL_BATCH = 4


def main(folder: Path, steps: int) -> None:
    folder.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    # Adam divides gradients by their own size, so the last bits of one near 0 come out as whole steps; small ones.
    length = StageConfig(num_pairs=steps * GLOBAL_BATCH, learning_rate=1e-5)
    config = small_config(steps, GLOBAL_BATCH, pretrain=length)
    fabric = start(config, "cpu")
    trainer = Trainer(fabric, AnyTalkLearner(config), config, folder)
    share = GLOBAL_BATCH // fabric.world_size
    mine = slice(fabric.global_rank * share, (fabric.global_rank + 1) * share)
    figures = []
    for number in range(steps):
        batch = {name: values[mine] for name, values in pairs(GLOBAL_BATCH, number).items()}
        _, scalars = trainer.step(trainer.learner.prepare(batch, fabric.device))
        figures.append({name: float(fabric.all_reduce(value, reduce_op="mean")) for name, value in scalars.items()})
    trainer._save(None)
    (folder / f"figures-{fabric.global_rank}.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
