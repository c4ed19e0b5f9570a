"""Report on runs and sweeps, from a checkout: python scripts/report.py --help. The same as `ockham report`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a bare clone works without being installed

from ockham.report.command_line import main

if __name__ == "__main__":
    main(sys.argv[1:], program="python scripts/report.py")
