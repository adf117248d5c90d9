"""What the loader costs, beside bare decoding of the same frames: ``anitalk bench loader`` from a checkout.

python benchmarks/loader.py --shards RELEASE [--batches 20] [--workers 1 --step-ms 320]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flows.cli.application import run

if __name__ == "__main__":
    sys.exit(run(["bench", "loader", *sys.argv[1:]]))
