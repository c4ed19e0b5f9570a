"""Targets as they are written, and when they are first met."""

import math

import pytest

from ockham.core.target import Target, parse_target


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("val/acc>=0.95", Target("val/acc", 0.95)),
        (" val/loss <= 2e-1 ", Target("val/loss", 0.2)),
        ("train/acc>=1", Target("train/acc", 1.0)),
    ],
)
def test_a_target_is_a_score_and_a_bound(text: str, expected: Target) -> None:
    assert parse_target(text) == expected
    assert parse_target(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.95", "val/acc>=0.95"),
        ("test/acc>=0.95", "the scores are val/acc, val/loss, train/acc, train/loss"),
        ("val/acc>0.95", "val/acc>=0.95"),
        ("val/acc<=0.95", "an accuracy rises to it"),
        ("val/loss>=0.2", "a loss falls to it"),
        ("val/acc>=95", "at most 1"),
        ("val/acc>=high", "above 0"),
        ("val/loss<=inf", "above 0"),
    ],
)
def test_what_is_none_is_a_mistake(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_target(text)


def test_the_first_evaluation_that_meets_it_counts() -> None:
    rows = [{"val/acc": value, "val/loss": -value} for value in (0.5, math.nan, 0.8, 0.7, 0.9)]
    assert parse_target("val/acc>=0.8").first(rows) == 2
    assert parse_target("val/acc>=0.95").first(rows) is None
