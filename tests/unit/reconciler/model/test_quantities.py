"""Amounts, as people write them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reconciler.model.kinds.quantities import (
    Owner,
    parse_bytes,
    parse_cpu,
    parse_duration,
    parse_mode,
    parse_owner,
    parse_signal,
)
from reconciler.model.problems import Wrong


@pytest.mark.parametrize(("text", "millis"), [("500m", 500), ("2", 2000), ("0.5", 500), ("1.25", 1250), ("1m", 1)])
def test_cpu_is_read_into_thousandths_of_a_core(text: str, millis: int) -> None:
    assert parse_cpu(text) == millis


@pytest.mark.parametrize(
    ("text", "count"),
    [("128Mi", 128 << 20), ("1Gi", 1 << 30), ("64M", 64_000_000), ("4096", 4096), ("1.5Gi", 3 << 29), ("1k", 1000),
     ("2Ki", 2048), ("1Ti", 1 << 40)],
)  # fmt: skip
def test_bytes_are_read_with_decimal_and_binary_units(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("10s", 10), ("5m", 300), ("1h", 3600), ("1h30m", 5400), ("0s", 0)]
)
def test_durations_are_read_into_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "number"), [("TERM", 15), ("SIGINT", 2), ("9", 9), ("RTMIN+3", 37)])
def test_signals_are_read_by_name_and_number(text: str, number: int) -> None:
    assert parse_signal(text) == number


def test_modes_are_octal_and_owners_are_two_numbers() -> None:
    assert parse_mode("0750") == 0o750
    assert parse_owner("1000:50") == Owner(1000, 50)
    assert parse_owner("7") == Owner(7, 7)


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (parse_cpu, "0"), (parse_cpu, "-1"), (parse_cpu, "500Mi"), (parse_cpu, ""), (parse_cpu, "1e3"),
        (parse_bytes, "-1Mi"), (parse_bytes, "64m"), (parse_bytes, "0"), (parse_bytes, "1.5"),
        (parse_bytes, "8388608Ti"), (parse_bytes, "128 Mi"), (parse_bytes, "٣Mi"),
        (parse_duration, ""), (parse_duration, "10"), (parse_duration, "-1s"), (parse_duration, "1m1h"),
        (parse_duration, "999999h"),
        (parse_signal, "NOPE"), (parse_signal, "0"), (parse_signal, "65"), (parse_signal, "TERM+1"),
        (parse_mode, "9"), (parse_mode, "0888"), (parse_mode, "77777"),
        (parse_owner, "root"), (parse_owner, "4294967295"), (parse_owner, ":1"),
    ],
)  # fmt: skip
def test_what_is_no_such_amount_is_refused_with_an_example(reader: Callable[[object], object], text: str) -> None:
    with pytest.raises(Wrong) as refused:
        reader(text)
    assert refused.value.message.startswith("is not ")
    assert "such as" in refused.value.advice


@pytest.mark.parametrize("reader", [parse_cpu, parse_bytes, parse_duration, parse_signal, parse_mode, parse_owner])
@pytest.mark.parametrize("value", [2, 1.5, True, None, ["1"], {"a": "b"}])
def test_an_amount_that_is_no_text_is_refused_as_such(reader: Callable[[object], object], value: object) -> None:
    with pytest.raises(Wrong) as refused:
        reader(value)
    assert refused.value.text_due
