"""One process of a run for tests, alone or under torchrun: its share of every batch, its figures to a file.

Called with a folder and a number of steps. Computes in 64 bits (see ``precision``).
"""

import hashlib
import json
import sys
from pathlib import Path

import torch

from tests.helpers.precision import double_precision
from tests.helpers.training_pairs import pairs
from tests.helpers.training_runs import small_config
from training.engine.launch import start
from training.engine.loop import Trainer
from training.recipes.anytalk.learner import AnyTalkLearner
from training.recipes.base import StageConfig

GLOBAL_BATCH = 4
LEARNING_RATE = 1e-5


def digest(*networks: torch.nn.Module) -> str:
    """SHA-256 of all weights and running means, to the last bit."""
    sha256 = hashlib.sha256()
    for network in networks:
        for name, values in sorted(network.state_dict().items()):
            sha256.update(name.encode() + values.contiguous().numpy().tobytes())
    return sha256.hexdigest()


def main(folder: Path, steps: int) -> None:
    folder.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    with double_precision():
        figures = train(folder, steps)
    (folder / f"figures-{figures['rank']}.json").write_text(json.dumps(figures))


def train(folder: Path, steps: int) -> dict:
    """A run's first steps: their figures, averaged over processes, and digests of the weights before and after them."""
    length = StageConfig(num_pairs=steps * GLOBAL_BATCH, learning_rate=LEARNING_RATE)
    config = small_config(steps, GLOBAL_BATCH, pretrain=length)
    fabric = start(config, "cpu")
    trainer = Trainer(fabric, AnyTalkLearner(config), config, folder)
    networks = (trainer.learner.model, trainer.learner.discriminator)
    start_digest = digest(*networks)
    share = GLOBAL_BATCH // fabric.world_size
    mine = slice(fabric.global_rank * share, (fabric.global_rank + 1) * share)
    figures = []
    for number in range(steps):
        batch = {name: values[mine] for name, values in pairs(GLOBAL_BATCH, number).items()}
        _, scalars = trainer.step(trainer.learner.prepare(batch, fabric.device))
        assert all(value.dtype == torch.float64 for value in scalars.values()), scalars
        figures.append({name: float(fabric.all_reduce(value, reduce_op="mean")) for name, value in scalars.items()})
    trainer._save(None)
    return {"rank": fabric.global_rank, "start": start_digest, "end": digest(*networks), "steps": figures}


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
