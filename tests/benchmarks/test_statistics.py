"""The bench's numbers are medians with honest intervals: exact on what is known, 95 % where it is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.row import Row, table
from benchmarks.statistics import Estimate, median, ratio

seconds = st.lists(st.floats(0.01, 100), min_size=1, max_size=20)


def test_the_median_of_known_samples() -> None:
    found = median([3.0, 1.0, 2.0])
    assert (found.value, found.n) == (2.0, 3)
    assert (found.low, found.high) == (1.0, 3.0)


def test_samples_without_spread_have_no_interval() -> None:
    assert median([1.5] * 10) == Estimate(1.5, 1.5, 1.5, 10)


@given(seconds)
def test_an_interval_holds_its_median_and_stays_within_the_samples(samples: list[float]) -> None:
    found = median(samples)
    assert min(samples) <= found.low <= found.value <= found.high <= max(samples)


def test_an_interval_holds_the_true_median_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        found = median(list(random.lognormal(0.0, 0.3, size=15)))
        held += found.low <= 1.0 <= found.high  # exp(0) is a lognormal's true median
    # 95 % nominal; the percentile bootstrap of a median is a little optimistic or cautious at n = 15.
    assert 0.88 <= held / 200 <= 0.995


def test_a_ratio_divides_medians_by_the_sum_of_medians() -> None:
    assert ratio([6.0, 6.0], [1.0, 1.0], [2.0, 2.0]) == Estimate(2.0, 2.0, 2.0, 2)


def test_load_that_hits_a_whole_round_cancels_in_a_ratio() -> None:
    random = np.random.default_rng(2)
    load = random.uniform(1, 5, size=12)
    together = ratio(list(3 * load), list(load))
    assert (together.value, together.low, together.high) == pytest.approx((3, 3, 3))
    apart = ratio(list(3 * load), list(random.permutation(load)))
    assert apart.high - apart.low > 0.5


@pytest.mark.parametrize("arms", [([],), ([], []), ([1.0],), ([1.0, 2.0], [1.0])])
def test_what_cannot_be_a_ratio_is_refused(arms: tuple[list[float], ...]) -> None:
    with pytest.raises(ValueError, match=r"denominator|samples|unequal"):
        ratio(*arms)


def test_a_row_is_over_only_above_its_budget() -> None:
    at = Estimate(2.0, 1.0, 3.0, 10)
    assert Row("x", "x", at, "s", budget=2.0).verdict == "ok"
    assert Row("x", "x", at, "s", budget=1.99).verdict == "over"
    assert Row("x", "x", at, "s").verdict == ""
    assert Row("x", "x", None, "s", budget=2.0).verdict == "not yet built"


def test_the_table_shows_every_row_and_each_note_once() -> None:
    at = Estimate(2.0, 1.0, 3.0, 10)
    text = table([Row("a", "first", at, "s", 2.5, "how"), Row("a", "second", at, "s", 1.5, "how")])
    first, second = (line for line in text.splitlines() if line.startswith(("first", "second")))
    assert first.endswith("ok")
    assert second.endswith("over")
    assert "1 … 3" in first
    assert text.count("how") == 1
