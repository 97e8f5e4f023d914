"""Lean dataclasses behave as the standard library's do."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field, replace
from typing import ClassVar

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


@dataclass(slots=True)
class Count:
    at: int = 0
    seen: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Held:
    at: int = 0


@dataclasses.dataclass(order=True)
class Open:
    name: str
    size: int = 1
    note: str = field(default="", compare=False, repr=False)


@dataclass(slots=True)
class Whole(Open):
    kind: ClassVar[str] = "whole"
    parts: tuple[str, ...] = ()
    total: int = field(init=False)
    fixed: int = field(default=7, init=False)
    own: list[int] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.total = len(self.parts)


def test_what_may_be_changed_is_compared_and_never_hashed() -> None:
    count = Count()
    count.at += 1
    assert (count, Count().seen) == (Count(1), [])
    assert Count().seen is not Count().seen
    with pytest.raises(TypeError):
        hash(count)


def test_what_is_not_compared_is_equal_to_itself_alone() -> None:
    held = Held(1)
    assert {held} == {held}
    assert held != Held(1)
    assert repr(held).endswith("Held(at=1)")


def test_an_heir_of_the_standard_librarys_has_its_fields_and_is_told_when_it_was_made() -> None:
    made = Whole("a", 2, parts=("x", "y"))
    assert (made.name, made.note, made.total, made.fixed, made.own, Whole.kind) == ("a", "", 2, 7, [], "whole")
    assert Whole.__match_args__ == ("name", "size", "note", "parts")
    assert [given.name for given in dataclasses.fields(made)] == [
        "name",
        "size",
        "note",
        "parts",
        "total",
        "fixed",
        "own",
    ]


def test_the_first_value_of_a_class_may_be_made_by_many_threads() -> None:
    for _ in range(20):

        @dataclass(frozen=True, slots=True)
        class Fresh:
            name: str
            size: int = 1

        together = threading.Barrier(8)

        def make(number: int, kind: type[Fresh] = Fresh, together: threading.Barrier = together) -> Fresh:
            together.wait(10.0)
            return kind(str(number)) if number % 2 else replace(kind(str(number)), size=1)

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(make, range(8))) == [Fresh(str(number)) for number in range(8)]


def test_a_wrong_argument_is_told_as_the_standard_library_tells_it() -> None:
    with pytest.raises(TypeError, match=r"Lean.__init__\(\) got an unexpected keyword argument 'colour'"):
        Lean("a", colour=1)  # type: ignore[call-arg]


def test_it_comes_through_pickle_and_a_match() -> None:
    match pickle.loads(pickle.dumps(Heir("a", more=3))):
        case Heir(name, 1, "", more):
            assert (name, more) == ("a", 3)
        case other:
            pytest.fail(repr(other))


def test_a_lean_class_costs_less_than_a_fifth_to_make() -> None:
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

    assert cost("core.values") < cost("dataclasses") / 5
