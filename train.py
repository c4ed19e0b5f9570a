"""Train one classifier, or with -m many: python train.py --help. The same as the command `ockham` of an installed Ockham."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))  # a bare clone works without being installed

# The shell completion of Hydra completes a script in which it finds the word @hydra.main.
from ockham.train import main

if __name__ == "__main__":
    main()
