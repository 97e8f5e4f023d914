"""Protobuf's wire format (protobuf.dev, Encoding), for messages whose fields are a table. Pure.

Rules of this file: bytes come from other programs and are hostile until they were read. Nothing is allocated for a
length that the data does not have; a message may hold at most `MOST_FIELDS` fields in all, nested ones too; unknown
ones are skipped, as the format wants; groups, which no message of ours has, are refused. Nesting is as deep as the
tables.

A message is a mapping from field names. `decode` returns every field of its table: what was not sent has its default
(0, False, "", b"", an empty list or dict; None for a message). `encode` leaves defaults out, as proto3 does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum, auto
from typing import Any, Final

from core.errors import Corrupt
from core.values import dataclass

MOST_FIELDS: Final = 65_536
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_VARINT: Final = 10
_WORD: Final = 1 << 64
_MOST_NUMBER: Final = (1 << 29) - 1


class Malformed(Corrupt):
    """Bytes that are no message of the kind that was expected."""


class Kind(StrEnum):
    """What a field holds."""

    UINT = auto()
    INT = auto()
    """int32 and int64, also enumerations: two's complement, negative ones take ten bytes."""
    BOOL = auto()
    STRING = auto()
    BYTES = auto()
    MESSAGE = auto()
    MAP = auto()
    """map<string, string>."""


@dataclass(frozen=True, slots=True)
class Field:
    """One row of a table: the field's number and kind; `message` is the table of what it nests."""

    number: int
    kind: Kind
    message: Mapping[str, Field] | None = None
    repeated: bool = False


Table = Mapping[str, Field]
_PAIR: Final[Table] = {"key": Field(1, Kind.STRING), "value": Field(2, Kind.STRING)}
_PACKABLE: Final = frozenset({Kind.UINT, Kind.INT, Kind.BOOL})
_DEFAULTS: Final[Mapping[Kind, Any]] = {
    Kind.UINT: 0,
    Kind.INT: 0,
    Kind.BOOL: False,
    Kind.STRING: "",
    Kind.BYTES: b"",
    Kind.MESSAGE: None,
}


# Short forms, so that a table reads like the .proto file it was made from.


def uint(number: int) -> Field:
    """uint32 or uint64."""
    return Field(number, Kind.UINT)


def integer(number: int) -> Field:
    """int32, int64 or an enumeration."""
    return Field(number, Kind.INT)


def boolean(number: int) -> Field:
    """bool."""
    return Field(number, Kind.BOOL)


def string(number: int, *, repeated: bool = False) -> Field:
    """string; UTF-8."""
    return Field(number, Kind.STRING, repeated=repeated)


def blob(number: int) -> Field:
    """bytes."""
    return Field(number, Kind.BYTES)


def message(number: int, table: Table, *, repeated: bool = False) -> Field:
    """Another message."""
    return Field(number, Kind.MESSAGE, table, repeated)


def strings(number: int) -> Field:
    """map<string, string>."""
    return Field(number, Kind.MAP)


# Writing.


def varint(value: int) -> bytes:
    """`value` (negative ones as 64-bit two's complement) in groups of seven bits."""
    value %= _WORD
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(table: Table, values: Mapping[str, Any]) -> bytes:
    """The bytes of a message. A name that the table does not have is a `KeyError`: our own mistake."""
    return b"".join(_field(table[name], value) for name, value in values.items())


def _field(field: Field, value: Any) -> bytes:
    if field.kind is Kind.MAP:
        pairs = ({"key": key, "value": text} for key, text in value.items())
        return b"".join(_delimited(field.number, encode(_PAIR, pair)) for pair in pairs)
    if field.repeated:
        return b"".join(_single(field, one) for one in value)
    if value is None or (field.kind is not Kind.MESSAGE and not value):
        return b""
    return _single(field, value)


def _single(field: Field, value: Any) -> bytes:
    if field.kind in _PACKABLE:
        return varint(field.number << 3 | _VARINT) + varint(int(value))
    if field.message is not None:
        return _delimited(field.number, encode(field.message, value))
    return _delimited(field.number, value.encode() if field.kind is Kind.STRING else bytes(value))


def _delimited(number: int, data: bytes) -> bytes:
    return varint(number << 3 | _BYTES) + varint(len(data)) + data


# Reading.


class _Budget:
    """How many fields may still come."""

    def __init__(self) -> None:
        self.left = MOST_FIELDS

    def take(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Malformed(f"a message with more than {MOST_FIELDS} fields")


def decode(table: Table, data: bytes) -> dict[str, Any]:
    """The message in `data`; raises `Malformed`. Of a single field that comes twice the last one counts."""
    return _decode(table, memoryview(data), _Budget())


def _decode(table: Table, data: memoryview, budget: _Budget) -> dict[str, Any]:
    values = {name: _empty(field) for name, field in table.items()}
    by_number = {field.number: (name, field) for name, field in table.items()}
    for number, wire, value in _raw_fields(data):
        budget.take()
        if number in by_number:
            name, field = by_number[number]
            _take(values, name, field, (wire, value), budget)
    return values


def _empty(field: Field) -> Any:
    if field.kind is Kind.MAP:
        return {}
    return [] if field.repeated else _DEFAULTS[field.kind]


def _take(values: dict[str, Any], name: str, field: Field, raw: tuple[int, int | memoryview], budget: _Budget) -> None:
    if field.kind is Kind.MAP:
        pair = _decode(_PAIR, _of_bytes(name, raw), budget)
        values[name][pair["key"]] = pair["value"]
    elif field.repeated:
        values[name].append(_value(name, field, raw, budget))
    else:
        values[name] = _value(name, field, raw, budget)


def _value(name: str, field: Field, raw: tuple[int, int | memoryview], budget: _Budget) -> Any:
    if field.kind in _PACKABLE:
        wire, number = raw
        if wire != _VARINT or not isinstance(number, int):
            raise Malformed(f"field {name} is no number")
        if field.kind is Kind.BOOL:
            return bool(number)
        return number - _WORD if field.kind is Kind.INT and number >= _WORD >> 1 else number
    data = _of_bytes(name, raw)
    if field.message is not None:
        return _decode(field.message, data, budget)
    if field.kind is Kind.BYTES:
        return bytes(data)
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise Malformed(f"field {name} is not UTF-8") from None


def _of_bytes(name: str, raw: tuple[int, int | memoryview]) -> memoryview:
    wire, data = raw
    if wire != _BYTES or isinstance(data, int):
        raise Malformed(f"field {name} has no length")
    return data


def _raw_fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number <= _MOST_NUMBER:
            raise Malformed(f"there is no field {number}")
        if wire == _VARINT:
            value, at = _read_varint(data, at)
            yield number, wire, value
            continue
        size, at = _read_size(data, at, wire)
        if size > len(data) - at:
            raise Malformed(f"field {number} says {size} bytes and has {len(data) - at}")
        yield number, wire, data[at : at + size]
        at += size


def _read_size(data: memoryview, at: int, wire: int) -> tuple[int, int]:
    if wire == _BYTES:
        return _read_varint(data, at)
    fixed = {_FIXED64: 8, _FIXED32: 4}.get(wire)
    if fixed is None:
        raise Malformed(f"wire type {wire} is not used")
    return fixed, at


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_MOST_VARINT):
        if at + index >= len(data):
            raise Malformed("a number is cut off")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value % _WORD, at + index + 1
    raise Malformed(f"a number of more than {_MOST_VARINT} bytes")
