"""Eigenvalues of a matrix of which only products with vectors are known, as of the Hessian of a loss."""

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

#: An eigenvalue is taken when what its vector's residual leaves open is so small a part of it. Its error is of the order of the
#: square, over the gap to the next eigenvalue.
TOLERANCE = 1e-4
#: It is taken as it is after so many products. Top eigenvalues of Hessians of nets stand apart: ten to thirty are usual.
MOST_PRODUCTS = 100


def largest_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor) -> float:
    """The largest eigenvalue, of any sign, of the symmetric matrix (n, n) that `product` multiplies vectors (n,) with.

    Lanczos 1950, from `start` (n,), which must have a part along the eigenvector: a random one has. Vectors are not made
    orthogonal again: what rounding does to them repeats eigenvalues that are found, and changes none (Paige 1976). So no more
    than three vectors are in memory. NaN where a product is not finite.
    """
    vector, before, beta = start / start.norm(), start.new_zeros(()), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        image = product(vector) - beta * before
        diagonal.append(float(image @ vector))
        image = image - diagonal[-1] * vector
        beta = float(image.norm())
        if not math.isfinite(diagonal[-1] + beta):
            return math.nan
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, -1))  # which reads the lower triangle
        largest, residual = float(values[-1]), beta * abs(float(vectors[-1, -1]))
        if residual <= TOLERANCE * abs(largest) or len(diagonal) == MOST_PRODUCTS:
            return largest
        beside.append(beta)
        vector, before = image / beta, vector
