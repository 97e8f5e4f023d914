"""`reconciler logs`: what a container wrote."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from core.errors import NotFound
from core.runtime.logs import Line, follow, read
from reconciler.cli import completing
from reconciler.cli.context import Node, container_key, pass_node
from reconciler.cli.options import DURATION
from reconciler.decide.attempts import Attempt, Memory
from reconciler.model.objects import Object


@click.command("logs")
@click.argument("container", shell_complete=completing.containers)
@click.option("-f", "--follow", "go_on", is_flag=True, help="Go on until the container is gone.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@click.option("--since", type=DURATION, default=0.0, metavar="10m", help="Only what is younger than this.")
@click.option("--previous", is_flag=True, help="The attempt before this one.")
@pass_node
def command(node: Node, container: str, go_on: bool, tail: int | None, since: float, previous: bool) -> int:
    """Print what a container wrote: its stdout to stdout, its stderr to stderr.

    \b
    Examples:
      reconciler logs web --tail 20 -f
      reconciler logs web --previous
    """
    obj = node.wanted(container_key(container))
    path = log_of(node.paths.logs, obj, previous=previous)
    oldest = node.clock.wall() - since if since else 0.0
    start = path.stat().st_size if path.exists() else 0
    show(read(path, tail=tail, since=oldest))
    if go_on:
        show(follow(path, node.clock, lambda: not _may_write(node, obj, path), start=start))
    return 0


def log_of(logs: Path, obj: Object, *, previous: bool) -> Path:
    """The log file of a container's attempt; raises `NotFound` while there is none."""
    memory = Memory.of(obj.record)
    attempts = [one for one in (memory.current, memory.previous) if one is not None]
    path = _before(logs, obj.name, memory) if previous else logs_path(logs, obj.name, attempts)
    if path is None:
        what = "has no earlier attempt with a log" if previous else "has not been started yet"
        raise NotFound(f"{obj.key} {what}", advice=f"See: reconciler describe {obj.key}")
    return path


def logs_path(logs: Path, name: str, attempts: list[Attempt]) -> Path | None:
    """The first of the attempts' logs that is there; None when none is."""
    paths = (logs / name / f"{attempt.id(name)}.log" for attempt in attempts)
    return next((path for path in paths if path.exists()), None)


def _before(logs: Path, name: str, memory: Memory) -> Path | None:
    current = memory.current.attempt if memory.current is not None else memory.attempt + 1
    found = {}
    for path in (logs / name).glob(f"{name}-*.log"):
        number = path.stem.rpartition("-")[2]
        if number.isdigit() and int(number) < current:
            found[int(number)] = path
    return found[max(found)] if found else None


def show(lines: Iterator[Line]) -> None:
    """Write lines to where the container wrote them."""
    for line in lines:
        out: BinaryIO = sys.stderr.buffer if line.stream == "stderr" else sys.stdout.buffer
        out.write(line.text if line.partial else line.text + b"\n")
        out.flush()


def _may_write(node: Node, obj: Object, path: Path) -> bool:
    """Whether more can come into this log: its attempt is the container's newest, and has not ended."""
    store = node.store()
    now = store.get(obj.key) if store is not None else None
    if now is None or now.uid != obj.uid:
        return False
    memory = Memory.of(now.record)
    current = memory.current
    return current is not None and f"{current.id(obj.name)}.log" == path.name and memory.current_ended() is None
