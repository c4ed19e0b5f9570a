"""Folds of a cross-validation."""

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold

from ockham.data.splits import folds


def test_folds_are_those_of_a_stratified_k_fold() -> None:
    labels = torch.tensor([0] * 23 + [1] * 41 + [2] * 9)
    parts = folds(labels, 5, seed=0)
    reference = StratifiedKFold(5).split(np.zeros(len(labels)), labels)
    expected = sorted(np.bincount(labels[test], minlength=3).tolist() for _, test in reference)
    sizes = sorted(torch.bincount(labels[parts == fold], minlength=3).tolist() for fold in range(5))
    assert np.abs(np.array(sizes) - np.array(expected)).max() <= 1
    assert sorted(len(labels[parts == fold]) for fold in range(5)) == [14, 14, 15, 15, 15]
    assert not torch.equal(parts, folds(labels, 5, seed=1))
