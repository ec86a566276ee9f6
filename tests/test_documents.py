"""Where packed documents are placed: nothing overlaps, short ones share segments, and little room is lost."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lm2.documents import pad_share, place_documents, plan_documents

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


@given(lengths=LENGTHS, segment_length=st.integers(1, 16))
def test_documents_do_not_overlap_and_begin_where_they_may(lengths, segment_length):
    taken = set()
    for length, place in zip(lengths, place_documents(lengths, segment_length), strict=True):
        columns = {(place.lane, place.column + i) for i in range(length)}
        assert not taken & columns
        taken |= columns
        first, last = place.column // segment_length, (place.column + length - 1) // segment_length
        assert place.column % segment_length == 0 or first == last


@given(lengths=LENGTHS, segment_length=st.integers(1, 16))
def test_a_long_document_shares_no_segment(lengths, segment_length):
    owners: dict[tuple[int, int], list[int]] = {}
    for length, place in zip(lengths, place_documents(lengths, segment_length), strict=True):
        for column in range(place.column, place.column + length, segment_length):
            owners.setdefault((place.lane, column // segment_length), []).append(length)
    assert all(len(found) == 1 or max(found) <= segment_length for found in owners.values())


@pytest.mark.parametrize(
    ("lengths", "share"), [([8, 8], 0.0), ([4] * 40, 0.0), ([20, 4], 8 / 32), ([17, 8, 8, 8], 7 / 48)]
)
def test_pad_share(lengths, share):
    assert pad_share(lengths, 8) == pytest.approx(share)


def test_forty_short_documents_take_ten_segments():
    positions = torch.arange(4).repeat(40)[None]
    layout = plan_documents((1, 160), 16, torch.device("cpu"), positions, look_back=0)
    assert layout is not None
    assert (layout.rows, layout.segments) == (10, 1)
    assert layout.is_shared


@given(lengths=LENGTHS, segment_length=st.integers(1, 16))
def test_lanes_are_even(lengths, segment_length):
    """No lane is longer than another by more than the longest document."""
    places = place_documents(lengths, segment_length)
    ends = {}
    for length, place in zip(lengths, places, strict=True):
        ends[place.lane] = max(ends.get(place.lane, 0), -(-(place.column + length) // segment_length))
    assert max(ends.values()) - min(ends.values()) <= -(-max(lengths) // segment_length)


def test_positions_without_a_border_are_no_packed_documents():
    assert plan_documents((2, 8), 4, torch.device("cpu"), torch.arange(5, 13)[None], look_back=0) is None
