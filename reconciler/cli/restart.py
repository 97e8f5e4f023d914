"""`reconciler restart`: one more attempt, once; afresh, or from where a checkpoint was taken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from core.errors import Conflict, Failed, NotFound, Unsupported
from reconciler.cli import byhand
from reconciler.cli.context import Node, container_key, pass_node

if TYPE_CHECKING:
    from core.runtime.checkpoints import About
    from core.runtime.table import Runtime
    from reconciler.decide.attempts import Attempt
    from reconciler.model.identity import Key
    from reconciler.model.objects import Object


@click.command("restart")
@byhand.CONTAINER
@click.option(
    "--from", "folder", type=click.Path(path_type=Path), metavar="FOLDER", help="Go on from this checkpoint, once."
)
@byhand.REASON
@byhand.WAIT
@byhand.TIMEOUT
@pass_node
def command(node: Node, container: str, folder: Path | None, reason: str, wait: bool, timeout: float) -> int:
    """Run a container anew: the next attempt is prepared, the running one stopped, the next one started. Once.

    A stop by hand is taken back by it. With --from it goes on where `reconciler checkpoint` wrote it down; where that
    fails it starts afresh. Exit code 0: it runs anew; 1: there is none, or it cannot be; 3: not in time.

    \b
    Example:
      reconciler restart web --reason "leaks memory"
      reconciler restart web --from /var/backups/web
    """
    from reconciler.decide.overrides import ask_restart

    if folder is None:
        return byhand.ask(node, container, lambda obj, now: ask_restart(obj, now, reason), wait=wait, timeout=timeout)
    with _taken_in(node, container, folder.absolute()) as name:
        byhand.ask(node, container, lambda obj, now: ask_restart(obj, now, reason, name), wait=False, timeout=timeout)
    if not wait:
        return 0
    code = byhand.settled(node, container_key(container), timeout)
    _check_restored(node, container_key(container), name)
    return code


@contextlib.contextmanager
def _taken_in(node: Node, container: str, folder: Path) -> Iterator[str]:
    """The name of the checkpoint among the engine's, held for the block so that no engine sweeps it away."""
    import os
    import secrets

    from core import fsio
    from core.runtime import checkpoints
    from reconciler.decide.attempts import Memory

    key = container_key(container)
    current = Memory.of(node.wanted(key).record).current
    if current is None:
        raise NotFound(f"{key} has never run", advice="Apply it first; then it can go on from a checkpoint.")
    about = checkpoints.read_about(folder)
    _check(node, key, current, about)
    kept = fsio.make_private(node.paths.checkpoints)
    name = f"{key.name}-{secrets.token_hex(6)}"
    checkpoints.take_in(folder, kept / name)
    held = fsio.hold(kept / name)
    try:
        yield name
    finally:
        if held is not None:
            os.close(held)


def _check(node: Node, key: Key, current: Attempt, about: About) -> None:
    """Raise `Conflict` when the checkpoint is of something else, `Unsupported` when it cannot be restored here."""
    from core.runtime.ports import Checkpointing
    from reconciler.decide.likeness import differences

    runtime = _runtime(node, current)
    driven = None if runtime is None else {**runtime.spec.to_json(), "path": runtime.spec.program}
    if found := list(differences(about, key.name, current, driven)):
        raise Conflict(
            f"{key} cannot go on from this checkpoint: {'; '.join(found)}",
            advice="Apply the manifest that it was taken under, or take another checkpoint.",
        )
    if runtime is None:
        return
    why = runtime.shim.why_no_checkpoint(ending=True) if isinstance(runtime.shim, Checkpointing) else "it has none"
    if why:
        raise Unsupported(f"{runtime.spec.name} restores no checkpoint here: {why}")


def _runtime(node: Node, current: Attempt) -> Runtime | None:
    """What the container runs by; None while its sandbox is not there."""
    from reconciler.wiring import runtimes_of

    try:
        return runtimes_of(node.paths).of_sandbox(current.sandbox)
    except NotFound:
        return None


def _check_restored(node: Node, key: Key, name: str) -> None:
    """Raise `Failed` with what was told of it when it was not restored."""
    from reconciler.decide.attempts import Memory
    from reconciler.decide.launching import RESTORE_FAILED

    obj: Object = node.wanted(key)
    current = Memory.of(obj.record).current
    if current is not None and current.checkpoint == name:
        return
    told = [event for event in node.store_to_write().events() if event.key == key and event.reason == RESTORE_FAILED]
    why = told[-1].message if told else "it was changed meanwhile"
    raise Failed(f"{key} does not go on from the checkpoint: {why}")
