"""Lean dataclasses behave as the standard library's do."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from dataclasses import field, replace

import pytest

from core.values import dataclass


@dataclass(frozen=True, slots=True)
class Lean:
    name: str
    size: int = 1
    note: str = field(default="", compare=False, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Full:
    name: str
    size: int = 1
    note: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Empty:
    pass


@dataclass(frozen=True, slots=True)
class Heir(Lean):
    more: int = 2


def test_equality_hash_and_repr_are_those_of_the_fields_that_take_part() -> None:
    assert Lean("a", note="x") == Lean("a", note="y")
    assert hash(Lean("a", note="x")) == hash(Lean("a", note="y")) == hash(Full("a", note="z"))
    assert Lean("a") != Lean("a", 2)
    assert repr(Lean("a", 3)).replace("Lean", "Full") == repr(Full("a", 3))


def test_values_of_two_classes_are_never_equal() -> None:
    assert Lean("a") != Full("a")
    assert Heir("a") != Lean("a")
    assert Empty() == Empty()
    assert len({Empty(), Empty()}) == 1


def test_they_are_replaced_listed_and_slotted_like_all_dataclasses() -> None:
    assert replace(Heir("a"), size=5) == Heir("a", 5)
    assert [given.name for given in dataclasses.fields(Heir)] == ["name", "size", "note", "more"]
    with pytest.raises(AttributeError):
        Lean("a").other = 1  # type: ignore[attr-defined]


def test_other_options_are_the_standard_librarys() -> None:
    @dataclass(frozen=True, order=True)
    class Ordered:
        at: int

    assert Ordered(1) < Ordered(2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Ordered(1).at = 3  # type: ignore[misc]


def test_a_lean_class_costs_less_than_half_to_make() -> None:
    program = (
        "import time\n"
        "from {} import dataclass\n"
        "body = {{'__annotations__': {{f'f{{n}}': 'int' for n in range(8)}}}}\n"
        "dataclass(frozen=True, slots=True)(type('Warm', (), dict(body)))\n"
        "start = time.process_time()\n"
        "for n in range(200):\n"
        "    dataclass(frozen=True, slots=True)(type(f'C{{n}}', (), dict(body)))\n"
        "print(time.process_time() - start)\n"
    )

    def cost(module: str) -> float:
        taken = [sys.executable, "-c", program.format(module)]
        return min(float(subprocess.run(taken, capture_output=True, check=True).stdout) for _ in range(3))

    assert cost("core.values") < cost("dataclasses") / 2
