"""What `stop`, `start` and `restart` share: something is asked of a container beside its spec, and waited for.

Rules of this file: what is asked is stored first, then told to the engine; where there is no agent, this process is the
engine until it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import click

from core.errors import Denied
from reconciler.cli import completing
from reconciler.cli.context import Node, container_key
from reconciler.cli.options import DURATION
from reconciler.cli.terminal import say
from reconciler.model.identity import Key
from reconciler.model.objects import Object, with_local

Ask = Callable[[Object, float], Mapping[str, Any]]
CONTAINER: Final = click.argument("container", shell_complete=completing.containers)
REASON: Final = click.option("--reason", default="", metavar="TEXT", help="Why: shown by why, describe and status.")
WAIT: Final = click.option("--wait/--no-wait", default=True, help="Wait until it is so [wait].")
TIMEOUT: Final = click.option(
    "--timeout", type=DURATION, default=300.0, metavar="5m", help="Give up waiting after this long [5m]."
)


def ask(node: Node, container: str, how: Ask, *, wait: bool, timeout: float) -> int:
    """Ask `how(object, now)` of the container, and wait until it is so; the exit code. Raises `NotFound`, `Denied`."""
    from reconciler.engine.doorbell import ring
    from reconciler.store.functions import modify

    key = container_key(container)
    found = node.wanted(key)
    if found.deleted is not None:
        raise Denied(f"{key} is being deleted: nothing was changed")
    store = node.store_to_write()
    modify(store, key, lambda obj: with_local(obj, how(obj, node.clock.wall())))
    ring(node.paths.state)
    if not wait:
        say(f"Accepted: {key}.")
        return 0
    return settled(node, key, timeout)


def settled(node: Node, key: Key, timeout: float) -> int:
    """Wait until it is as asked, and say how it is; the exit code."""
    from reconciler.cli.delete import settle
    from reconciler.cli.verdicts import NO_AGENT, exit_code, tell_failures

    store = node.store_to_write()
    began = node.clock.monotonic()
    verdict = settle(node, store, frozenset({key}), timeout)
    left = verdict.stalled | verdict.pending
    tell_failures(store.list() if left else (), left)
    obj = store.get(key)
    state = "gone" if obj is None else str(obj.status.get("state", "unknown"))
    seconds = node.clock.monotonic() - began
    say(f"{'Not done: ' if left else ''}{key}: {state}, {'after' if left else 'in'} {seconds:.1f} s.")
    if not verdict.supervised:
        say(NO_AGENT)
    return exit_code(verdict)
