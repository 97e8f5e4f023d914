"""`reconciler checkpoint`: what a running container has in memory, and what it wrote, in a folder to go on from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from core.errors import Busy, Denied, NotFound, Unsupported
from core.values import dataclass
from reconciler.cli import byhand
from reconciler.cli.context import Node, container_key, pass_node
from reconciler.cli.terminal import say
from reconciler.cli.texts import amount

if TYPE_CHECKING:
    from core.runtime.checkpoints import About
    from core.runtime.ports import Checkpointing
    from core.runtime.table import Runtime
    from core.snapshots.changes import Written
    from reconciler.decide.attempts import Attempt
    from reconciler.model.identity import Key
    from reconciler.model.objects import Object

_SECONDS: Final = 900.0
"""For so long a container that is to be ended by its checkpoint is left alone by the engine, if we are killed."""


@click.command("checkpoint")
@byhand.CONTAINER
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--stop", is_flag=True, help="It ends by the checkpoint, and stays stopped.")
@byhand.REASON
@byhand.TIMEOUT
@pass_node
def command(node: Node, container: str, folder: Path, stop: bool, reason: str, timeout: float) -> int:
    """Write a running container into FOLDER, which is made: its memory, and what it wrote into its root.

    It holds every secret that the memory held: it is root's alone. Volumes are not in it. Go on from it with
    `reconciler restart CONTAINER --from FOLDER`. Exit code 0: it is there; 1: it cannot be done, and says why.

    \b
    Examples:
      reconciler checkpoint web /var/backups/web --stop
      reconciler restart web --from /var/backups/web
    """
    taken = _look(node, container, stop=stop)
    about = _write(node, taken, folder.absolute(), stop=stop, reason=reason)
    size = about.layer.size + sum(piece.size for piece in about.state.values())
    say(f"{folder}: {taken.key} in {amount(size)}.")
    return byhand.settled(node, taken.key, timeout) if stop else 0


@dataclass(frozen=True, slots=True)
class _Taken:
    """A container that runs and can be written down."""

    key: Key
    attempt: Attempt
    runtime: Runtime
    shim: Checkpointing
    root: Written

    @property
    def id(self) -> str:
        """The id of its task."""
        return self.attempt.id(self.key.name)


def _look(node: Node, container: str, *, stop: bool) -> _Taken:
    from core.runtime.ports import Checkpointing, TaskPhase
    from core.snapshots.changes import written
    from core.snapshots.native import NativeSnapshotter
    from reconciler.decide.attempts import Memory
    from reconciler.wiring import runtimes_of

    key = container_key(container)
    obj = node.wanted(key)
    if obj.deleted is not None:
        raise Denied(f"{key} is being deleted")
    memory = Memory.of(obj.record)
    if memory.previous is not None:
        raise Busy(f"{key} is being replaced", advice="Try again when it is ready.")
    current = memory.current
    runtimes = runtimes_of(node.paths)
    id = "" if current is None else current.id(key.name)
    if current is None or runtimes.shim(id).state(id).phase is not TaskPhase.RUNNING:
        raise NotFound(f"{key} does not run", advice=f"Wait for it, or see why: reconciler describe {key}")
    runtime = runtimes.of_task(id)
    shim = runtime.shim
    if not isinstance(shim, Checkpointing):
        raise Unsupported(f"{runtime.spec.name} cannot write a container down", advice="See: reconciler runtime ls")
    if why := shim.why_no_checkpoint(ending=stop):
        raise Unsupported(f"{key} cannot be written down: {why}")
    _check_sandbox(node, id)
    driver = str(current.image["driver"])
    copied = driver == "native" and NativeSnapshotter.in_order
    return _Taken(key, current, runtime, shim, written(node.paths.snapshots / driver, id, copied=copied))


def _check_sandbox(node: Node, id: str) -> None:
    """Raise `Unsupported` for what a container shares that no checkpoint can hold."""
    import json

    linux = json.loads((node.paths.state / "bundles" / id / "config.json").read_bytes()).get("linux", {})
    if "uidMappings" in linux:
        raise Unsupported("a container with users of its own cannot be written down (userNamespace)")
    if any(one["type"] == "pid" and one.get("path") for one in linux.get("namespaces", ())):
        raise Unsupported("a container that shares its processes cannot be written down (shareProcessNamespace)")


def _write(node: Node, taken: _Taken, folder: Path, *, stop: bool, reason: str) -> About:
    from core import fsio
    from core.runtime import checkpoints
    from core.snapshots.changes import keep

    with checkpoints.making(folder) as work, _left_alone(node, taken, reason, ending=stop):
        taken.shim.checkpoint(taken.id, work / checkpoints.STATE, ending=stop)
        with contextlib.nullcontext() if stop else _still(taken):
            layer = keep(taken.root, work / checkpoints.LAYER)
        piece = checkpoints.Piece(layer.size, layer.digest)
        about = checkpoints.seal(work, _about(node, taken, piece))
        fsio.publish(work, folder)
    return about


def _about(node: Node, taken: _Taken, layer: Any) -> About:
    from core.runtime.checkpoints import About
    from reconciler.cli.runtimes import prober_of
    from reconciler.decide.attempts import lasting

    attempt, spec = taken.attempt, taken.runtime.spec
    version = prober_of(node).probe(spec).version
    runtime = {**spec.to_json(), "path": spec.program, "version": version}
    digest = str(attempt.image.get("digest", ""))
    return About(taken.key.name, digest, attempt.hash, lasting(attempt.spec), runtime, node.clock.wall(), layer)


@contextlib.contextmanager
def _still(taken: _Taken) -> Iterator[None]:
    """It stands still for the block: what it wrote is read."""
    taken.runtime.shim.pause(taken.id)
    try:
        yield
    finally:
        taken.runtime.shim.resume(taken.id)


@contextlib.contextmanager
def _left_alone(node: Node, taken: _Taken, reason: str, *, ending: bool) -> Iterator[None]:
    """The engine neither ends, thaws nor starts it again in the block; after it, it is stopped when it was to be.

    It is over by itself after a while: whoever is killed here leaves nothing stopped for good.
    """
    from reconciler.decide.overrides import STOP, ask_checkpoint, confirm_checkpoint
    from reconciler.engine.doorbell import ring
    from reconciler.model.objects import with_local
    from reconciler.store.functions import modify

    store = node.store_to_write()
    asked = ask_checkpoint(node.clock.wall(), _SECONDS, reason, taken.attempt.attempt)

    def change(obj: Object, changes: dict[str, Any]) -> Object:
        return with_local(obj, changes)

    modify(store, taken.key, lambda obj: change(obj, asked))
    try:
        yield
    except BaseException:
        modify(store, taken.key, lambda obj: change(obj, {STOP: None}))
        ring(node.paths.state)
        raise
    modify(store, taken.key, lambda obj: change(obj, confirm_checkpoint(obj) if ending else {STOP: None}))
    ring(node.paths.state)
