"""`reconciler wait`: until one object is as asked."""

from __future__ import annotations

from typing import Any

import click

from reconciler.cli import completing
from reconciler.cli.columns import message, ready, state
from reconciler.cli.context import Node, pass_node
from reconciler.cli.options import DURATION
from reconciler.cli.terminal import complain_in_words, say
from reconciler.model.identity import Key
from reconciler.model.objects import Object

TIMED_OUT = 3
POLL_SECONDS = 0.5


@click.command("wait")
@click.argument("key", metavar="KIND/NAME", shell_complete=completing.objects)
@click.option(
    "--for", "goal", type=click.Choice(["Ready", "Deleted", "Exited"]), default="Ready", show_default=True,
    help="What to wait for.",
)  # fmt: skip
@click.option("--timeout", type=DURATION, default=300.0, metavar="5m", help="Give up after this long [5m].")
@pass_node
def command(node: Node, key: str, goal: str, timeout: float) -> int:
    """Wait until an object is ready, gone, or has exited. It need not be there yet. Exit code 3: not in time.

    \b
    Examples:
      reconciler wait container/web
      reconciler wait container/job --for Exited --timeout 1m
    """
    wanted = Key.parse(key)
    deadline = node.clock.monotonic() + timeout
    store = node.store()
    while True:
        version = store.version() if store is not None else 0
        obj = store.get(wanted) if store is not None else None
        if reached(obj, goal):
            say(f"{wanted}: {goal}")
            return 0
        left = deadline - node.clock.monotonic()
        if left <= 0:
            complain_in_words(f"{wanted}: timed out: not {goal} after {timeout:g} s", [_seen(obj)])
            return TIMED_OUT
        if store is None:
            node.clock.sleep(min(POLL_SECONDS, left))
            store = node.store()
        else:
            store.wait(version, min(POLL_SECONDS, left))


def reached(obj: Object | None, goal: str) -> bool:
    """Whether an object (None: it is not there) is as `goal` says."""
    if goal == "Deleted":
        return obj is None
    if obj is None or obj.deleted is not None:
        return False
    if goal == "Exited":
        return obj.status.get("observedGeneration") == obj.generation and _word(obj.status.get("state")) == "Exited"
    return ready(obj) == "True"


def _word(value: Any) -> str:
    return str(value or "")


def _seen(obj: Object | None) -> str:
    return "it is not there" if obj is None else f"it is {state(obj)}" + (f": {text}" if (text := message(obj)) else "")
