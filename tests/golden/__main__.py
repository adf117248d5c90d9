"""``python -m tests.golden COMMIT --assert-equal``."""

import sys

from tests.golden.compare import main

sys.exit(main(sys.argv[1:]))
