"""`reconciler why`: who asked for an object, what was done last, what it waits for, what comes next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from core.clock import parse_timestamp
from reconciler.cli import completing
from reconciler.cli.context import Node, key_from, pass_node
from reconciler.cli.output import MACHINE, output_option, say_one
from reconciler.cli.status import engine_of
from reconciler.cli.terminal import printable, say
from reconciler.cli.texts import age, since

MOST_NAMES = 8


@click.command("why")
@click.argument("kind", metavar="KIND/NAME", shell_complete=completing.objects)
@click.argument("name", required=False, metavar="")
@output_option("json", "yaml")
@pass_node
def command(node: Node, kind: str, name: str | None, output: str | None) -> int:
    """Why an object is as it is: who asked for it and where, what was done last, what it waits for, what comes next.

    \b
    Examples:
      reconciler why container/web
      reconciler why image/web -o json
    """
    from reconciler.cli.explanation import explain

    obj = node.wanted(key_from(kind, name))
    store = node.store()
    assert store is not None, "it holds the object"
    found = explain(obj, store.list(), store.events())
    engine = engine_of(node)
    if output in MACHINE:
        say_one({**found, "engine": engine}, output)
    else:
        say(printable("\n".join(lines(found, node.clock.wall(), engine))))
    return 0


def lines(found: Mapping[str, Any], now: float, engine: str) -> Iterator[str]:
    """The explanation for a person."""
    told = f": {found['message']}" if found["message"] else ""
    yield f"{found['object']} is {found['state']}{told}"
    for one in found["askedFor"]:
        through = "" if one["object"] == found["object"] else f"{one['object']}, which was asked for "
        yield _line("asked for", through + _asked(one))
    for word, local in found["local"].items():
        if word == "sync":
            continue  # a request that was answered; nothing that holds
        yield _line("locally", f"{word}{_local(local, now)}")
    if (last := found["last"]) is not None:
        text = f" ({last['message']})" if last["message"] else ""
        yield _line("last", f"{last['what']}{text}, {since(last['at'], now)} ago")
    for one in found["waitsFor"]:
        yield _line("waits for", f"{one['reason']}: {one['message']}")
    for one in found["because"]:
        due = f"; tried again {_in(one['next'], now)}" if one["next"] and engine else ""
        yield _line("because", f"{one['object']}: {one['message']}{due}")
    if (error := found["lastError"]) is not None:
        yield _line("error", f"{error['phase']}: {error['category']}: {error['message']}")
        yield from [_line("", error["hint"])] if error.get("hint") else []
    yield _line("next", _next(found["next"], now, engine))
    yield from _names("needs", [f"{one['object']} ({one['state']})" for one in found["needs"]])
    yield from _names("used by", found["usedBy"])
    yield from _names("owns", found["owns"])


def _line(word: str, text: str) -> str:
    return f"  {word:<10} {text}"


def _names(word: str, names: list[str]) -> Iterable[str]:
    if not names:
        return ()
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return (_line(word, ", ".join(names[:MOST_NAMES]) + more),)


def _asked(one: Mapping[str, Any]) -> str:
    place = f"{one['file']}:{one['line']}" if one["line"] else one["file"]
    revision = f" at revision {one['revision'][:12]}" if one["revision"] else ""
    return f"by {one['by'] or 'nobody known'}{revision}" + (f" in {place}" if place else "")


def _local(local: Any, now: float) -> str:
    """What a person at the node asked for, whatever it is: its reason, and how long it holds."""
    if not isinstance(local, Mapping):
        return f": {local}"
    parts = []
    for name, value in local.items():
        if name in ("until", "expires") and value:
            at = parse_timestamp(value) if isinstance(value, str) else float(value)
            parts.append(f"for {age(at - now)} more" if at > now else "expired")
        elif name in ("at", "since") and value:
            parts.append(f"{since(value, now)} ago")
        elif value not in (None, ""):
            parts.append(f"{name}: {value}")
    return f" ({', '.join(parts)})" if parts else ""


def _next(found: Mapping[str, Any], now: float, engine: str) -> str:
    if not engine and not found["what"].startswith("nothing"):
        return "nothing, until an agent runs: reconciler agent"
    if found["at"]:
        return f"{found['what']} {_in(found['at'], now)}"
    return str(found["what"])


def _in(at: str, now: float) -> str:
    left = parse_timestamp(at) - now
    return f"in {age(left)}" if left > 0 else "now"
