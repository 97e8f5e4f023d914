"""`reconciler delete`: remove objects, and wait until nothing of them is left."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from core.errors import Denied, NotFound
from reconciler.cli import completing
from reconciler.cli.context import Node, key_from, pass_node
from reconciler.cli.options import DURATION, files
from reconciler.cli.terminal import say, tell
from reconciler.cli.texts import counted
from reconciler.model.identity import Key, Kind, checked_name, kind_of
from reconciler.model.objects import Object

if TYPE_CHECKING:
    from reconciler.store.port import ObjectStore
    from reconciler.wiring import Verdict

PURGE: Final = "reconciler/purge"


@click.command("delete")
@click.argument("what", nargs=-1, metavar="[KIND NAME… | KIND/NAME…]", shell_complete=completing.several)
@files("The objects in a file, a folder, or -.")
@click.option(
    "--set", "set_name", default="", metavar="NAME", shell_complete=completing.sets, help="All members of a set."
)
@click.option("--wait/--no-wait", default=True, help="Wait until they are gone [wait].")
@click.option("--timeout", type=DURATION, default=300.0, metavar="5m", help="Give up waiting after this long [5m].")
@click.option("--purge", is_flag=True, help="Remove the folders of volumes too, whatever `retain` says.")
@pass_node
def command(
    node: Node, what: tuple[str, ...], paths: tuple[str, ...], set_name: str, wait: bool, timeout: float, purge: bool
) -> int:
    """Remove objects, and wait until they are gone. A volume's folder stays, unless `retain: false` or --purge.

    Exit code 0: gone; 1: invalid, or what is left is stalled; 3: not in time.

    \b
    Examples:
      reconciler delete container web db
      reconciler delete -f manifests/
      reconciler delete --set edge --purge
    """
    if bool(what) + bool(paths) + bool(set_name) != 1:
        raise click.UsageError("Say what to delete: KIND NAME…, or -f PATH, or --set NAME.")
    began = node.clock.monotonic()
    store = node.store()
    objects = chosen(store, what, paths, set_name)
    if store is None or not objects:
        tell("nothing to delete")
        return 0
    keys = mark(node, store, objects, purge=purge)
    tell_what_stays(node, objects, purge=purge)
    if not wait:
        say(f"Accepted: {counted(len(objects), 'object')} to delete.")
        return 0
    return finish(node, store, keys, len(objects), timeout, began)


def chosen(store: ObjectStore | None, what: Sequence[str], paths: Sequence[str], set_name: str) -> list[Object]:
    """The objects that are meant. Raises `NotFound` for a name that is not there, `Denied` for others' objects."""
    from reconciler.store.applied import set_manager

    stored = {obj.key: obj for obj in store.list()} if store is not None else {}
    if set_name:
        manager = set_manager(set_name)
        return [obj for obj in stored.values() if obj.manager == manager]
    if paths:
        return [stored[key] for key in _in_files(paths, stored) if key in stored]
    keys = list(dict.fromkeys(keys_of(what)))
    if missing := [key for key in keys if key not in stored]:
        kind = missing[0].kind.value.lower()
        raise NotFound(
            f"there is no {', '.join(map(str, missing))}: nothing was deleted",
            advice=f"List what is there: reconciler get {kind}",
        )
    for key in keys:
        _refuse(stored[key])
    return [stored[key] for key in keys]


def keys_of(what: Sequence[str]) -> list[Key]:
    """`container web db`, or `container/web image/web`; raises `Invalid` and usage errors."""
    if all("/" in word for word in what):
        return [Key.parse(word) for word in what]
    if len(what) == 1:
        return [key_from(what[0], None)]
    kind = kind_of(what[0])
    return [Key(kind, checked_name(name)) for name in what[1:]]


def _refuse(obj: Object) -> None:
    if obj.manager.startswith("source/") or obj.manager == "engine":
        owner = ", ".join(sorted(map(str, obj.owners)))
        advice = f"Delete {owner}, to which it belongs." if owner else "Remove it from its source; it would come back."
        raise Denied(f"{obj.key} belongs to {obj.manager}: nothing was deleted", advice=advice)


def _in_files(paths: Sequence[str], stored: dict[Key, Object]) -> list[Key]:
    from reconciler.cli.proposal import Request, read

    return [manifest.key for manifest in read(Request(paths), stored, references=False).manifests]


def mark(node: Node, store: ObjectStore, objects: Iterable[Object], *, purge: bool) -> frozenset[Key]:
    """Durably: the store, then applied/, then the doorbell. Returns the keys to wait for: all that goes with them."""
    from reconciler.engine.doorbell import ring
    from reconciler.store.applied import keep_applied
    from reconciler.store.functions import vanish
    from reconciler.store.port import Put, WriteConflict

    keys = [obj.key for obj in objects]
    goes_with = owned_below(store.list(), keys)
    while True:
        found = [obj for key in keys if (obj := store.get(key)) is not None]
        try:
            store.commit([Put(_going(obj, node.clock.wall(), purge=purge), obj.version) for obj in found])
            break
        except WriteConflict:
            continue  # somebody wrote first, and so did get on: read again
    for obj in found:
        if not obj.finalizers:
            vanish(store, obj, node.clock.wall())
    keep_applied(node.paths.root, store, keys)
    ring(node.paths.state)
    return frozenset(keys) | goes_with


def _going(obj: Object, now: float, *, purge: bool) -> Object:
    marked = replace(obj, deleted=now if obj.deleted is None else obj.deleted)
    if not purge or obj.kind is not Kind.VOLUME:
        return marked
    return replace(marked, annotations={**obj.annotations, PURGE: "true"})


def owned_below(objects: Sequence[Object], keys: Collection[Key]) -> frozenset[Key]:
    """What goes with `keys`, because nothing else owns it."""
    going = set(keys)
    while more := {obj.key for obj in objects if obj.key not in going and obj.owners and obj.owners <= going}:
        going |= more
    return frozenset(going - set(keys))


def tell_what_stays(node: Node, objects: Iterable[Object], *, purge: bool) -> None:
    """Say of each volume whose folder outlives it where that is."""
    for obj in objects:
        if obj.kind is Kind.VOLUME and obj.spec.get("retain", True) and not purge:
            say(f"{obj.key}: its folder stays: {node.paths.volumes / obj.name} (retain: true; --purge removes it)")


def finish(node: Node, store: ObjectStore, keys: frozenset[Key], count: int, timeout: float, began: float) -> int:
    """Wait, and say how it ended; the exit code."""
    from reconciler.cli.verdicts import exit_code, tell_failures
    from reconciler.store.applied import keep_applied

    sys.stdout.flush()
    verdict = settle(node, store, keys, timeout)
    keep_applied(node.paths.root, store, keys)
    left = verdict.stalled | verdict.pending
    tell_failures(store.list() if left else (), left)
    seconds = node.clock.monotonic() - began
    if left:
        say(f"Not gone: {counted(len(left), 'object')}, after {seconds:.1f} s.")
    else:
        say(f"Deleted: {counted(count, 'object')}, in {seconds:.1f} s.")
    return exit_code(verdict)


def settle(node: Node, store: ObjectStore, keys: frozenset[Key], timeout: float) -> Verdict:
    """Converge `keys` (or wait until the agent has), with live progress."""
    from reconciler.cli.progress import Progress
    from reconciler.wiring import converge

    progress = Progress(store.list, keys, node.clock)
    try:
        return converge(node.paths, store, keys, config=node.engine_config, timeout=timeout, tick=progress.tick)
    finally:
        progress.clear()
