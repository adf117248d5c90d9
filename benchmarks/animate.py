"""What a frame of animation costs, lever by lever: ``anitalk bench animate`` from a checkout.

python benchmarks/animate.py [--preset 256] [--batch-size 1] [--rounds 3]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flows.cli.application import run

if __name__ == "__main__":
    sys.exit(run(["bench", "animate", *sys.argv[1:]]))
