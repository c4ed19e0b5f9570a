import pytest

from ockham.core.pace import Pace, duration


def pace_of(*seen: tuple[int, float]) -> Pace:
    pace = Pace()
    for epoch, now in seen:
        pace.saw(epoch, now)
    return pace


def test_what_came_before_the_first_epoch_is_no_part_of_an_epoch() -> None:
    pace = pace_of((0, 0.0), (0, 60.0), (1, 100.0))
    assert pace.seconds is None
    assert pace.seconds_left(10, 101.0) is None
    pace.saw(2, 104.0)
    assert pace.seconds == 4.0
    assert pace.seconds_left(10, 105.0) == 8 * 4.0 - 1.0
    assert pace.seconds_left(10, 500.0) == 7 * 4.0, "an epoch that does not end"
    assert pace.seconds_left(2, 105.0) == 0.0


def test_epochs_between_two_looks_share_the_time() -> None:
    assert pace_of((3, 10.0), (3, 12.0), (7, 18.0)).seconds == 2.0


def test_a_pause_in_between_is_no_epoch_and_a_new_pace_replaces_the_old_one() -> None:
    paused = pace_of((1, 1.0), (2, 2.0), (3, 30.0), (4, 31.0))
    assert paused.seconds == 1.0
    assert pace_of(*((epoch, 10.0 * epoch) for epoch in range(1, 9)), *((8 + n, 80.0 + n) for n in range(1, 9))).seconds == 1.0


def test_a_group_that_begins_anew_is_measured_anew() -> None:
    pace = pace_of((1, 0.0), (2, 10.0), (1, 50.0))
    assert pace.seconds is None
    pace.saw(2, 53.0)
    assert pace.seconds == 3.0


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89.0, "89 s"), (150.0, "2 min"), (7200.0, "2.0 h")])
def test_a_duration_has_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text
