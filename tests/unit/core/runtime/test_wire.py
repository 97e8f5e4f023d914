"""Protobuf's wire format: what is written is read again, what is hostile is refused within bounds."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.runtime import wire
from core.runtime.wire import Malformed, decode, encode

INNER = {"name": wire.string(1), "number": wire.integer(3)}
TABLE = {
    "count": wire.uint(1),
    "level": wire.integer(2),
    "sure": wire.boolean(3),
    "text": wire.string(4),
    "data": wire.blob(5),
    "inner": wire.message(6, INNER),
    "many": wire.message(7, INNER, repeated=True),
    "words": wire.string(8, repeated=True),
    "labels": wire.strings(900),
}
inners = st.fixed_dictionaries({"name": st.text(), "number": st.integers(-(1 << 63), (1 << 63) - 1)})
values = st.fixed_dictionaries(
    {
        "count": st.integers(0, (1 << 64) - 1),
        "level": st.integers(-(1 << 63), (1 << 63) - 1),
        "sure": st.booleans(),
        "text": st.text(),
        "data": st.binary(),
        "inner": st.none() | inners,
        "many": st.lists(inners, max_size=5),
        "words": st.lists(st.text(), max_size=5),
        "labels": st.dictionaries(st.text(), st.text(), max_size=5),
    }
)


@given(values)
def test_what_is_written_is_read_again(value: dict[str, Any]) -> None:
    assert decode(TABLE, encode(TABLE, value)) == value


@given(values, st.integers(0, 400))
def test_a_message_that_is_cut_off_is_refused_or_a_shorter_message(value: dict[str, Any], cut: int) -> None:
    try:
        found = decode(TABLE, encode(TABLE, value)[:cut])
    except Malformed:
        return
    assert found.keys() == TABLE.keys()


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        decode(TABLE, data)
    except Malformed:
        return


@pytest.mark.parametrize(
    ("table", "value", "data"),
    [
        ({"a": wire.integer(1)}, {"a": 150}, "089601"),  # the examples of protobuf.dev
        ({"b": wire.string(2)}, {"b": "testing"}, "120774657374696e67"),
        ({"c": wire.message(3, {"a": wire.integer(1)})}, {"c": {"a": 150}}, "1a03089601"),
        ({"a": wire.integer(1)}, {"a": -2}, "08feffffffffffffffff01"),
        ({"a": wire.integer(1)}, {"a": 0}, ""),
        ({"c": wire.message(3, {"a": wire.integer(1)})}, {"c": {}}, "1a00"),
    ],
)
def test_bytes_are_those_of_the_specification(table: wire.Table, value: dict[str, Any], data: str) -> None:
    assert encode(table, value).hex() == data


def test_fields_that_are_not_known_are_skipped() -> None:
    data = bytes.fromhex("089601a00601a2060161a5060000000aa1060000000a0000000a")
    assert decode({"a": wire.integer(1)}, data) == {"a": 150}


@pytest.mark.parametrize(
    "data",
    [
        "08",  # a tag and nothing
        "0880",  # a number that does not end
        "08" + "ff" * 10 + "01",  # a number of more than ten bytes
        "0001",  # field 0
        "0b0c",  # a group
        "22ffffffff0f",  # text that is said to have 4 GiB
        "2202c328",  # text that is not UTF-8
        "0a0161",  # bytes where a number is due
        "2001",  # a number where text is due
        "3203089601" + "32",  # cut off after a message
        "2dff",  # a fixed field that is cut off
    ],
)
def test_what_is_no_message_is_refused(data: str) -> None:
    with pytest.raises(Malformed):
        decode(TABLE, bytes.fromhex(data))


def test_four_mebibytes_of_tiny_entries_are_refused_within_bounded_memory() -> None:
    data = bytes.fromhex("3a00") * (2 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match="fields"):
            decode(TABLE, data)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
