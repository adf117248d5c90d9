"""What a training step costs, and what each lever brings: ``anitalk bench train`` from a checkout.

python benchmarks/train.py [--preset 256] [--batch-size 8] [--lever bf16 --lever channels_last]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flows.cli.application import run

if __name__ == "__main__":
    sys.exit(run(["bench", "train", *sys.argv[1:]]))
