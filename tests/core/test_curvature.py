"""The largest eigenvalue from products alone, against LAPACK."""

import math

import pytest
import torch
from torch import Tensor

from ockham.core.curvature import MOST_PRODUCTS, largest_eigenvalue


def symmetric(eigenvalues: Tensor) -> Tensor:
    chance = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues), generator=chance, dtype=torch.float64))
    return basis * eigenvalues @ basis.T


def start(size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


SPECTRA = {
    "dense": torch.linspace(-1, 1, 400, dtype=torch.float64) ** 3 * 30,
    "the largest by size is negative": torch.cat([-torch.arange(100.0, 300.0), torch.arange(5.0)]).double(),
    "all negative": -(torch.arange(1, 50, dtype=torch.float64) ** 2),
    "repeated": torch.tensor([3.0, 3.0, 3.0, 1.0, 0.0], dtype=torch.float64),
    "identity": torch.full((6,), 2.5, dtype=torch.float64),
    "one number": torch.tensor([-4.0], dtype=torch.float64),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_the_largest_eigenvalue_is_lapacks(name: str) -> None:
    matrix = symmetric(SPECTRA[name])
    expected = float(torch.linalg.eigvalsh(matrix)[-1])
    products = []

    def product(vector: Tensor) -> Tensor:
        products.append(vector)
        return matrix @ vector

    assert largest_eigenvalue(product, start(len(matrix))) == pytest.approx(expected, rel=1e-6)
    assert len(products) <= MOST_PRODUCTS


def test_a_zero_matrix_has_zero_and_what_is_not_finite_has_none() -> None:
    assert largest_eigenvalue(lambda vector: 0 * vector, start(5)) == 0
    assert math.isnan(largest_eigenvalue(lambda vector: vector * math.inf, start(5)))
    assert math.isnan(largest_eigenvalue(lambda vector: vector * math.nan, start(5)))
