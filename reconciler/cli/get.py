"""`reconciler get`: tables of objects, or the objects themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import field

import click

from core.clock import Clock
from core.errors import NotFound
from core.values import dataclass
from reconciler.cli import completing
from reconciler.cli.columns import Column, columns_of, row_of
from reconciler.cli.context import Node, pass_node
from reconciler.cli.masks import masked
from reconciler.cli.output import FORMATS, MACHINE, output_option, say_items, say_one
from reconciler.cli.selectors import Term, matches, parse_selector
from reconciler.cli.terminal import say, tell
from reconciler.cli.texts import column_widths, table
from reconciler.model.identity import Key, Kind, checked_name, kind_of
from reconciler.model.objects import Object
from reconciler.store.port import ObjectStore, TooOld

EVENTS = ("event", "events")
NOTHING = "nothing found"
POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for; `kind` None: all kinds, `name` "": all names."""

    kind: Kind | None
    name: str = ""
    terms: tuple[Term, ...] = ()
    output: str = ""

    @classmethod
    def parse(cls, kind: str, name: str | None, selector: str, output: str | None) -> Question:
        """Read the words of the command line; raises `Invalid`."""
        if name is None and "/" in kind:
            kind, _, name = kind.partition("/")
        wanted = None if kind.lower() == "all" and name is None else kind_of(kind)
        return cls(wanted, checked_name(name) if name else "", parse_selector(selector), output or "")

    def asks_for(self, obj: Object) -> bool:
        """Whether `obj` belongs to the answer."""
        kind = obj.kind is self.kind or (self.kind is None and obj.kind is not Kind.REVISION)
        return kind and self.name in ("", obj.name) and matches(self.terms, obj.labels)

    def answer(self, store: ObjectStore | None) -> list[Object]:
        """The objects asked for, ordered by kind and name."""
        if store is None:
            return []
        if self.kind is not None and self.name:
            found = store.get(Key(self.kind, self.name))
            return [found] if found is not None and self.asks_for(found) else []
        return [obj for obj in store.list(self.kind) if self.asks_for(obj)]


@click.command("get")
@click.argument("kind", shell_complete=completing.kinds)
@click.argument("name", required=False, shell_complete=completing.names)
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="Only objects with these labels: app=web,!old.")
@click.option("-w", "--watch", is_flag=True, help="Go on, and print what changes.")
@output_option(*FORMATS)
@pass_node
def command(node: Node, kind: str, name: str | None, selector: str, watch: bool, output: str | None) -> int:
    """List the objects of a KIND (or `all`), or print the one of that NAME.

    A NAME that is not there is exit code 1; an empty list is not. Data of secrets is shown as ***.

    \b
    Examples:
      reconciler get all
      reconciler get container web -o json
      reconciler get images -l app=web -w
    """
    if kind.lower() in EVENTS and name is None:
        from reconciler.cli.events import list_events

        return list_events(node, parse_selector(selector), watch=watch, output=output or "")
    question = Question.parse(kind, name, selector, output)
    store = node.store()
    if watch:
        return _watch(node, question)
    objects = question.answer(store)
    if question.name and not objects:
        key = Key(question.kind or Kind.NODE, question.name)
        raise NotFound(f"there is no {key}", advice=f"List what is there: reconciler get {key.kind.value.lower()}")
    _print(question, objects, node.clock.wall())
    return 0


def _print(question: Question, objects: Sequence[Object], now: float) -> None:
    if question.output in MACHINE:
        shapes = [masked(obj) for obj in objects]
        if question.name:
            say_one(shapes[0], question.output)
        else:
            say_items(shapes, question.output)
    elif question.output == "name":
        for obj in objects:
            say(str(obj.key))
    elif not objects:
        tell(NOTHING)
    else:
        columns = columns_of(question.kind, wide=question.output == "wide")
        say(table([column.head for column in columns], [row_of(obj, columns, now) for obj in objects]))


@dataclass(slots=True)
class _Watcher:
    """Prints rows below each other under one heading, or one object a line for programs."""

    question: Question
    clock: Clock
    columns: list[Column] = field(init=False)
    widths: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.columns = columns_of(self.question.kind, wide=self.question.output == "wide")

    def show(self, objects: Sequence[Object]) -> None:
        """Print `objects` as they are now."""
        if self.question.output == "name":
            lines = [str(obj.key) for obj in objects]
        elif self.question.output in MACHINE:
            lines = list(self._documents(objects))
        else:
            lines = self._rows([row_of(obj, self.columns, self.clock.wall()) for obj in objects])
        for line in lines:
            say(line)
        sys.stdout.flush()

    def gone(self, key: Key) -> None:
        """Print that an object is no more."""
        if self.question.output not in MACHINE:
            say(f"{key if self.question.kind is None else key.name}  gone")
            sys.stdout.flush()

    def _documents(self, objects: Sequence[Object]) -> Iterator[str]:
        import json

        from reconciler.cli.output import as_text

        for obj in objects:
            if self.question.output == "json":
                yield json.dumps(masked(obj), ensure_ascii=False)
            else:
                yield "---\n" + as_text(masked(obj), "yaml")

    def _rows(self, rows: list[list[object]]) -> list[str]:
        head = [column.head for column in self.columns]
        first = not self.widths
        text = table(head, rows, self.widths or [0] * len(head))
        self.widths = column_widths([head, *([str(part) for part in row] for row in rows)], self.widths)
        return text.splitlines() if first else text.splitlines()[1:]


def _watch(node: Node, question: Question) -> int:
    watcher = _Watcher(question, node.clock)
    while (store := node.store()) is None:
        node.clock.sleep(POLL_SECONDS)
    known: dict[Key, Object] = {}
    since = -1
    while True:
        version = store.version()
        for key in _changed(store, since, known):
            obj = store.get(key)
            if obj is not None and question.asks_for(obj):
                if known.get(key) != obj:
                    watcher.show([obj])
                known[key] = obj
            elif known.pop(key, None) is not None:
                watcher.gone(key)
        since = version
        store.wait(since, 10.0)


def _changed(store: ObjectStore, since: int, known: dict[Key, Object]) -> list[Key]:
    """The keys to look at again: those of the change log, or all when it does not reach back."""
    if since >= 0:
        try:
            return [change.key for change in store.changes(since)]
        except TooOld:
            tell("some changes were missed: listing all again")
    return sorted({obj.key for obj in store.list()} | set(known))
