"""Small image folders and data files for the tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_images(root: Path, *, splits: tuple[str, ...] = ("train", "test"), mode: str = "RGB", count: int = 6) -> None:
    """Two classes of random images of differing sizes in root/<split>/<class>."""
    drawn = np.random.default_rng(0)
    for split in splits:
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                size = (8 + number, 9) if mode == "L" else (8 + number, 9, 3)
                Image.fromarray(drawn.integers(0, 256, size, dtype=np.uint8), mode).save(folder / f"{number}.png")
