"""A document that is converted, and what became of each of its keys.

Rules of this file: it knows no format and does no I/O. A value of the wrong type is an error with its place. What is
said first of a key stays; a key of which nothing was said is dropped, and told as such, so that nothing can be lost
silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Final, NamedTuple, TypeAlias

from core.values import dataclass
from migrations.config.tree import BadDocument
from migrations.config.work import Entry, Outcome

Scalar: TypeAlias = str | int | float | bool | None
_UNKNOWN: Final = "there is nothing of the kind here"


@dataclass(slots=True, eq=False)
class Given:
    """One value of the input. `text`: a scalar as it was written; `fields` of a mapping, `items` of a list, None where
    it is none. `line` and `column` count from 1.
    """

    file: str
    line: int
    column: int
    path: tuple[str | int, ...] = ()
    value: Scalar = None
    text: str = ""
    fields: dict[str, Given] | None = None
    items: list[Given] | None = None

    @property
    def key(self) -> str:
        """`spec.containers[0].env[1].name`."""
        return spelled(self.path)

    @property
    def empty(self) -> bool:
        """Whether it holds nothing: null, "", [] or {}."""
        return self.value in (None, "") and not self.fields and not self.items

    def get(self, *keys: str) -> Given | None:
        """The value below; None where there is none, or null. Raises `BadDocument` where no mapping is on the way."""
        here: Given | None = self
        for key in keys:
            here = None if here is None or here.null else here.mapping().get(key)
        return None if here is None or here.null else here

    @property
    def null(self) -> bool:
        """Whether nothing stands there."""
        return self.value is None and self.fields is None and self.items is None

    def mapping(self) -> dict[str, Given]:
        """Its keys; none for null. Raises `BadDocument`."""
        if self.null:
            return {}
        if self.fields is None:
            raise self.bad("is not a mapping", "Write key: value pairs, indented below it.")
        return self.fields

    def listing(self) -> list[Given]:
        """Its items; none for null. Raises `BadDocument`."""
        if self.null:
            return []
        if self.items is None:
            raise self.bad("is not a list", "Write one item a line, each after '- '.")
        return self.items

    def string(self) -> str:
        """Its text; a number or truth value as it was written. Raises `BadDocument`."""
        if self.fields is not None or self.items is not None or self.value is None:
            raise self.bad("is not text", "Write text.")
        return self.value if isinstance(self.value, str) else self.text

    def number(self) -> int:
        """A whole number, also one in quotes. Raises `BadDocument`."""
        try:
            return int(self.string())
        except ValueError:
            raise self.bad("is not a whole number", "Write a whole number.") from None

    def truth(self) -> bool:
        """True or false, also in quotes. Raises `BadDocument`."""
        words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        if (found := words.get(self.string().lower())) is None:
            raise self.bad("is not true or false", "Write true or false.")
        return found

    def leaves(self) -> Iterator[Given]:
        """Every value below that holds no other, itself where it holds none."""
        below = list(self.fields.values()) if self.fields else self.items
        if not below:
            yield self
        for one in below or ():
            yield from one.leaves()

    def bad(self, message: str, advice: str = "") -> BadDocument:
        """The error that says what is wrong with it."""
        return BadDocument(self.file, self.line, self.column, f"{self.key} {message}".strip(), advice)


def spelled(path: Sequence[str | int]) -> str:
    """`a.b[0]."c.d"`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if part.replace("-", "").replace("_", "").isalnum() else f'"{part}"'
            text += f".{word}" if text else word
    return text


class Note(NamedTuple):
    """What was said of a key."""

    outcome: Outcome
    why: str
    to: str


@dataclass(slots=True)
class Account:
    """What became of every key of these documents."""

    roots: Sequence[Given]
    notes: dict[int, Note] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    """Sentences about the whole, for people."""

    def say(self, given: Given | None, outcome: Outcome, why: str = "", to: str = "") -> None:
        """Say it of all leaves at and below, as far as nothing was said of them; of None: nothing."""
        for leaf in given.leaves() if given is not None else ():
            known = self.notes.setdefault(id(leaf), Note(outcome, why, to))
            if to and not known.to and known.outcome in (Outcome.MOVED, Outcome.TRANSLATED):
                self.notes[id(leaf)] = known._replace(to=to)  # how was said, now where

    def moved(self, given: Given | None, to: str, why: str = "") -> None:
        """It means the same there."""
        self.say(given, Outcome.MOVED, why, to)

    def moved_keys(self, given: Given, keys: Sequence[str], to: str) -> None:
        """Only these keys of a mapping mean the same there."""
        for key in keys:
            self.moved(given.mapping().get(key), to)

    def translated(self, given: Given | None, to: str, why: str) -> None:
        """It is said in another way there."""
        self.say(given, Outcome.TRANSLATED, why, to)

    def default(self, given: Given | None, why: str = "says what holds without it") -> None:
        """It says what holds without it."""
        self.say(given, Outcome.DEFAULT, why)

    def inert(self, given: Given | None, why: str) -> None:
        """It has no effect here, and needs none."""
        self.say(given, Outcome.INERT, why)

    def dropped(self, given: Given | None, why: str) -> None:
        """It is gone; `why` says what to do."""
        self.say(given, Outcome.DROPPED, why)

    def entries(self) -> list[Entry]:
        """A line for each key, in the order of the documents."""
        return [self._entry(leaf) for root in self.roots for leaf in root.leaves()]

    def _entry(self, leaf: Given) -> Entry:
        unsaid = Note(Outcome.DEFAULT, "has no value", "") if leaf.null else Note(Outcome.DROPPED, _UNKNOWN, "")
        note = self.notes.get(id(leaf), unsaid)
        return Entry(leaf.key or "the document", leaf.file, leaf.line, note.outcome, note.to, note.why)


Rule: TypeAlias = Callable[[Given], None] | tuple[Outcome, str]


def follow(account: Account, given: Given, rules: Mapping[str, Rule]) -> None:
    """Each key of a mapping by its rule, in the order of the rules; one without a rule stays unsaid for now."""
    fields = given.mapping()
    for key, rule in rules.items():
        if (one := fields.get(key)) is None or one.null:
            continue
        if isinstance(rule, tuple):
            account.say(one, *rule)
        else:
            rule(one)
