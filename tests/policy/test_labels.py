"""The lattice of data classes."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.errors import RecordError
from policy.labels import DataClass, join, parse

LABELS = st.sampled_from(DataClass)


def test_the_order_is_the_declared_one():
    """Sorting goes by sensitivity, from public to restricted, and not by the alphabet."""
    assert [str(label) for label in sorted(DataClass, key=lambda label: label)] == [
        "public",
        "internal",
        "confidential",
        "restricted",
    ]
    assert max(DataClass) is DataClass.RESTRICTED
    assert min(DataClass) is DataClass.PUBLIC


@given(LABELS, LABELS)
def test_every_comparison_agrees_with_the_rank(a, b):
    """All comparison operators and `at_most` say what the ranks say."""
    for compare in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne):
        assert compare(a, b) is compare(a.rank, b.rank)
    assert a.at_most(b) is (a.rank <= b.rank)


@given(LABELS, LABELS, LABELS)
def test_join_is_the_least_upper_bound(a, b, c):
    """Join is idempotent, commutative, associative and never below either side."""
    assert join(a, a) is a
    assert join(a, b) is join(b, a)
    assert join(a, join(b, c)) is join(join(a, b), c)
    assert join(a, b).rank == max(a.rank, b.rank)


@pytest.mark.parametrize("compare", [operator.lt, operator.le, operator.gt, operator.ge])
@pytest.mark.parametrize("other", ["internal", 1, None])
def test_order_against_anything_else_is_refused(compare, other):
    """Ordering a label against a bare string raises instead of comparing alphabetically, from either side."""
    with pytest.raises(TypeError):
        compare(DataClass.CONFIDENTIAL, other)
    with pytest.raises(TypeError):
        compare(other, DataClass.CONFIDENTIAL)


@given(LABELS)
def test_parse_reads_what_is_written(label):
    """A label's word reads back as the label, and is equal to that word."""
    assert parse(str(label)) is label
    assert label == label.value


@given(st.text().filter(lambda text: text not in tuple(DataClass)))
def test_an_unknown_label_is_an_error_that_lists_the_known(text):
    """Any other text is refused with code `unknown_label` and the known labels; at most a bit of it is repeated."""
    with pytest.raises(RecordError, match="public, internal, confidential, restricted") as caught:
        parse(text)
    assert caught.value.code == "unknown_label"
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("label", ["Public", " public", "RESTRICTED", "secret", ""])
def test_labels_are_exact(label):
    """Case and spaces count: a near miss is unknown, never a guess."""
    with pytest.raises(RecordError):
        parse(label)
