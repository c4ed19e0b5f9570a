"""Copy runs into MLflow or wandb, from a checkout: python scripts/export.py --help. The same as `ockham export`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a bare clone works without being installed

from ockham.report.trackers import main

if __name__ == "__main__":
    main(sys.argv[1:], program="python scripts/export.py")
