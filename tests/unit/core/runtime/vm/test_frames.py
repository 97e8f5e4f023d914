"""Frames between host and guest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.runtime.vm.frames import LARGEST, Decoder, Frame, Kind, Nonsense, encode, more, said

FRAMES = st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=200)), max_size=8)


@given(FRAMES, st.lists(st.integers(1, 50), min_size=1))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    frames: list[tuple[Kind, int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(encode(*frame) for frame in frames)
    decoder, found, at, turn = Decoder(), [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        found += decoder.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert found == [Frame(*frame) for frame in frames]


@pytest.mark.parametrize(
    "head", [(LARGEST + 1).to_bytes(4, "big") + bytes(4) + b"\1", bytes(8) + b"\0", bytes(8) + b"\x63", b"\xff" * 9]
)
def test_a_head_that_cannot_be_ends_the_stream(head: bytes) -> None:
    with pytest.raises(Nonsense):
        list(Decoder().feed(head))


@pytest.mark.parametrize("payload", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_call_that_is_no_object_is_nonsense(payload: bytes) -> None:
    with pytest.raises(Nonsense):
        Frame(Kind.CALL, 1, payload).json()


def test_counts_and_objects_are_read_back() -> None:
    (count,) = Decoder().feed(more(7, 65536))
    assert (count.kind, count.stream, count.credit()) == (Kind.MORE, 7, 65536)
    (call,) = Decoder().feed(said(Kind.CALL, 3, {"call": "ping"}))
    assert call.json() == {"call": "ping"}
    with pytest.raises(Nonsense):
        Frame(Kind.MORE, 1, b"123").credit()
