"""Graphs as plain values: which kinds the controllers read and write, and which objects hang together. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from core.values import dataclass
from reconciler.cli.columns import is_ready, state
from reconciler.decide.references import references
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object


class Edge(NamedTuple):
    """`source` uses or owns `target`."""

    source: Key
    target: Key
    word: str


@dataclass(frozen=True, slots=True)
class Writer:
    """A controller: it writes the status of `kind`, makes objects of `makes`, reads those of `reads`."""

    name: str
    kind: Kind
    makes: tuple[Kind, ...]
    reads: tuple[Kind, ...]


def edges(objects: Iterable[Object]) -> list[Edge]:
    """Who uses and who owns whom; what is both used and owned is told as owned."""
    found: dict[tuple[Key, Key], str] = {}
    for obj in objects:
        found.update({(obj.key, needed): "uses" for needed in sorted(references(obj))})
    for obj in objects:
        found.update({(owner, obj.key): "owns" for owner in sorted(obj.owners)})
    return [Edge(*pair, word) for pair, word in sorted(found.items())]


def around(key: Key, every: Sequence[Edge]) -> list[Edge]:
    """The edges down from `key` to all that it rests on, and up to all that rest on it."""
    down = _reached(key, every, lambda edge: (edge.source, edge.target))
    up = _reached(key, every, lambda edge: (edge.target, edge.source))
    return [edge for edge in every if edge.source in down or edge.target in up]


def _reached(key: Key, every: Sequence[Edge], ends: Any) -> set[Key]:
    seen, ahead = {key}, [key]
    while ahead:
        here = ahead.pop()
        for edge in every:
            start, end = ends(edge)
            if start == here and end not in seen:
                seen.add(end)
                ahead.append(end)
    return seen


def nodes(key: Key, found: Sequence[Edge], by_key: Mapping[Key, Object]) -> list[dict[str, Any]]:
    """The objects of `found` and `key` itself, with their states; one that is not there is `Missing`."""
    keys = {key, *(edge.source for edge in found), *(edge.target for edge in found)}
    return [_node(one, by_key.get(one)) for one in sorted(keys)]


def _node(key: Key, obj: Object | None) -> dict[str, Any]:
    if obj is None:
        return {"object": str(key), "state": "Missing", "ready": False, "manager": ""}
    return {"object": str(key), "state": state(obj), "ready": is_ready(obj), "manager": obj.manager}


def tree(key: Key, found: Sequence[Edge], states: Mapping[Key, str], *, up: bool = False) -> Iterator[str]:
    """Lines of all below (or above) `key`; what was shown before is not opened again."""
    yield from _branches(key, found, states, up, {key}, "")


def _branches(
    key: Key, found: Sequence[Edge], states: Mapping[Key, str], up: bool, seen: set[Key], indent: str
) -> Iterator[str]:
    mine = [edge for edge in found if (edge.target if up else edge.source) == key]
    for number, edge in enumerate(mine):
        other = edge.source if up else edge.target
        last = number == len(mine) - 1
        word = {"uses": "used by", "owns": "owned by"}[edge.word] if up else edge.word
        again = " …" if other in seen else ""
        yield f"{indent}{'└─' if last else '├─'} {word} {other}  {states.get(other, 'Missing')}{again}"
        if other not in seen:
            seen.add(other)
            yield from _branches(other, found, states, up, seen, indent + ("   " if last else "│  "))


def kinds_shape(writers: Sequence[Writer], objects: Sequence[Object]) -> list[dict[str, Any]]:
    """For each kind: how many, whose specs, whose status, and what its controller reads and makes."""
    managers = Counter((obj.kind, obj.manager) for obj in objects)
    by_kind = {writer.kind: writer for writer in writers}
    return [_kind_shape(kind, by_kind.get(kind), managers) for kind in Kind]


def _kind_shape(kind: Kind, writer: Writer | None, managers: Mapping[tuple[Kind, str], int]) -> dict[str, Any]:
    mine = {manager: count for (of, manager), count in sorted(managers.items()) if of is kind}
    return {
        "kind": kind.value,
        "count": sum(mine.values()),
        "writtenBy": mine,
        "controller": writer.name if writer is not None else "",
        "reads": [one.value for one in writer.reads] if writer is not None else [],
        "makes": [one.value for one in writer.makes] if writer is not None else [],
    }


def dot(lines: Iterable[str]) -> str:
    """A Graphviz digraph of these statements."""
    return "\n".join(["digraph reconciler {", "  rankdir=LR; node [shape=box];", *(f"  {one}" for one in lines), "}"])


def quoted(text: object) -> str:
    """A Graphviz id; names have no quotes or backslashes, messages are never shown."""
    return '"' + str(text).replace("\\", "\\\\").replace('"', '\\"') + '"'
