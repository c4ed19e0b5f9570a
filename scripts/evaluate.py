"""Evaluate a run or the best of a sweep, from a checkout: python scripts/evaluate.py --help. The same as `ockham evaluate`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a bare clone works without being installed

from ockham.evaluate import main

if __name__ == "__main__":
    main(sys.argv[1:], program="python scripts/evaluate.py")
