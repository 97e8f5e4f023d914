"""Dataclasses that cost little to make: what `dataclasses.dataclass` is to the type checker, and less at start-up.

Two hundred small classes were a third of what a command's imports cost: the standard library looks at every field by
regular expressions, and compiles up to six methods for each class. Here comparison, hash and repr are shared, and
`__init__` is compiled when the first value is made: most commands make values of few of the classes that they import.
What the standard library knows of a class (`fields`, `replace`, `asdict`) it is told when it first asks. That a frozen
value is not changed is the type checker's to see to (`frozen=True`, with slots, so that at least no new attribute can
be set).
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls: type | None = None, /, **options: bool) -> Any:
        """As the standard library's; lean where it has slots and is not ordered."""
        if cls is not None or not options.get("slots") or options.keys() - {"frozen", "slots", "eq"}:
            return dataclasses.dataclass(cls, **options)
        return lambda cls: _lean(cls, frozen=options.get("frozen", False), eq=options.get("eq", True))


_GIVEN: Final = "__given__"
"""Of a lean class: its fields with their annotations and defaults, those of its bases first."""
_TOLD: Final = ("__dataclass_params__", "__dataclass_fields__")
_MISSING: Final = dataclasses.MISSING
_NOT_GIVEN: Final = object()


_Given = dict[str, tuple[str, Any]]


def _lean(cls: type, *, frozen: bool, eq: bool) -> Any:
    given = _given(cls)
    made: Any = _slotted(cls, given)
    own = made.__dict__
    setattr(made, _GIVEN, given)
    if "__init__" not in own:
        made.__init__ = _first_init(made)
    for name in _TOLD:
        setattr(made, name, _Told(made, name))
    if "__repr__" not in own:
        made.__repr__ = _represent(tuple(name for name in given if _said(given, name, "repr", True)))
    if eq:
        _compare(made, given, frozen=frozen)
    return made


def _given(cls: type) -> _Given:
    """Every field's annotation and default (`MISSING`: none)."""
    given: _Given = {}
    for base in reversed(cls.__mro__[1:]):
        whole = base.__dict__.get("__dataclass_fields__", {})
        given |= base.__dict__.get(_GIVEN) or {name: (one.type, one) for name, one in whole.items()}
    own = cls.__dict__
    for name, annotation in cls.__annotations__.items():
        if not str(annotation).removeprefix("typing.").startswith("ClassVar"):
            given[name] = (annotation, own.get(name, _MISSING))
    return given


def _slotted(cls: type, given: _Given) -> Any:
    """The class anew, with a slot for each field that its bases have none for."""
    there = {slot for base in cls.__mro__[1:] for slot in base.__dict__.get("__slots__", ())}
    body = {name: value for name, value in cls.__dict__.items() if name not in given}
    for name in ("__dict__", "__weakref__"):
        body.pop(name, None)
    body["__slots__"] = tuple(name for name in given if name not in there)
    body["__match_args__"] = tuple(name for name in given if _said(given, name, "init", True))
    return type(cls)(cls.__name__, cls.__bases__, body)


def _said(given: _Given, name: str, what: str, otherwise: bool) -> bool:
    """What a `field(…)` says of a field."""
    default = given[name][1]
    said = getattr(default, what) if isinstance(default, dataclasses.Field) else None
    return otherwise if said is None else bool(said)


def _first_init(made: Any) -> Any:
    """Compiles `__init__` when the first value is made, and leaves it in its own place."""

    def first(self: Any, *args: Any, **named: Any) -> None:
        made.__init__ = _init(made, made.__dict__[_GIVEN])
        made.__init__(self, *args, **named)

    return first


def _init(made: type, given: _Given) -> Any:
    """`__init__` as the standard library writes it."""
    known: dict[str, Any] = {"_NOT_GIVEN": _NOT_GIVEN}
    words, lines = ["self"], []
    for name, (_, default) in given.items():
        said = default if isinstance(default, dataclasses.Field) else None
        plain = default if said is None else said.default
        value = name if said is None or said.init else f"_default_{name}"
        if said is not None and said.default_factory is not _MISSING:
            known[f"_make_{name}"], plain = said.default_factory, _NOT_GIVEN
            value = f"_make_{name}() if {value} is _NOT_GIVEN else {value}"
        if plain is not _MISSING:
            known[f"_default_{name}"] = plain
        if said is None or said.init:
            words.append(name if plain is _MISSING else f"{name}=_default_{name}")
        elif plain is _MISSING:
            continue  # `__post_init__` gives it
        lines.append(f"self.{name} = {value}")
    if hasattr(made, "__post_init__"):
        lines.append("self.__post_init__()")
    # The names are those of fields in our own source, and hold nothing but letters, digits and underscores.
    exec(f"def __init__({', '.join(words)}):\n " + "\n ".join(lines or ["pass"]), known)
    init = known["__init__"]
    init.__qualname__ = f"{made.__qualname__}.__init__"
    return init


class _Told:
    """Stands for what the standard library wants to know of a class, until it asks."""

    def __init__(self, made: Any, name: str) -> None:
        self._made = made
        self._name = name

    def __get__(self, obj: object, owner: type) -> Any:
        _tell(self._made)
        return self._made.__dict__[self._name]


def _tell(made: Any) -> None:
    """Have the standard library make a class of the same fields, and keep what it knows; harmless when done twice."""
    given: _Given = made.__dict__[_GIVEN]
    annotations = {name: annotation for name, (annotation, _) in given.items()}
    body: dict[str, Any] = {name: default for name, (_, default) in given.items() if default is not _MISSING}
    body |= {"__annotations__": annotations, "__doc__": made.__doc__ or "."}  # without one it would write one
    body |= {"__module__": made.__module__, "__qualname__": made.__qualname__}
    whole = dataclasses.dataclass(init=False, eq=False, repr=False)(type(made.__name__, (), body)).__dict__
    for name in _TOLD:
        setattr(made, name, whole[name])


def _represent(shown: tuple[str, ...]) -> Any:
    def represent(self: Any) -> str:
        pairs = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{self.__class__.__qualname__}({pairs})"

    return represent


def _compare(made: Any, given: _Given, *, frozen: bool) -> None:
    """Comparison and hash by the fields that take part; what the class has of its own stays."""
    values = _getter([name for name in given if _said(given, name, "compare", True)])
    hashed = _getter([name for name in given if _said(given, name, "hash", _said(given, name, "compare", True))])

    def equal(self: Any, other: object) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    own = made.__dict__
    has_own = "__hash__" in own and not ("__eq__" in own and own["__hash__"] is None)
    if "__eq__" not in own:
        made.__eq__ = equal
    if not has_own:
        made.__hash__ = (lambda self: hash(hashed(self))) if frozen else None


def _getter(names: list[str]) -> Any:
    """What takes an object's fields, as a tuple whatever their number."""
    if not names:
        return lambda obj: ()
    taken = attrgetter(*names)
    return taken if len(names) > 1 else lambda obj: (taken(obj),)
