"""The watermark: never past an unfinished record, never behind the finished ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.watermark import Watermark


@given(st.data())
def test_the_position_is_the_lowest_unfinished_offset_in_any_order_of_ends(data):
    """For rising offsets with gaps that end in any order, the position is the lowest open one, else the next."""
    offsets = sorted(data.draw(st.sets(st.integers(0, 500), min_size=1, max_size=40)))
    mark, open_ones, begun, last = Watermark(), set(), 0, None
    while begun < len(offsets) or open_ones:
        if begun < len(offsets) and (not open_ones or data.draw(st.booleans())):
            mark.begin(offsets[begun])
            open_ones.add(offsets[begun])
            begun += 1
        else:
            ended = data.draw(st.sampled_from(sorted(open_ones)))
            mark.end(ended)
            open_ones.discard(ended)
        assert mark.position == (min(open_ones) if open_ones else offsets[begun - 1] + 1)
        assert last is None or mark.position >= last
        last = mark.position
    assert len(mark) == 0
    assert mark._ended == set()


def test_nothing_begun_means_nothing_to_commit():
    """A partition from which nothing was taken has no position."""
    assert Watermark().position is None


@pytest.mark.parametrize("offset", [3, 2])
def test_an_offset_is_begun_once_and_in_order(offset):
    """An offset that is not above all before is a mistake of the caller."""
    mark = Watermark()
    mark.begin(3)
    with pytest.raises(ValueError, match="begun already"):
        mark.begin(offset)
