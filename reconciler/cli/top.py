"""`reconciler top`: what each running container uses of the node, from files of the kernel; nothing is started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from core.errors import NotFound
from core.values import dataclass
from reconciler.cli.context import Node, pass_node
from reconciler.cli.output import output_option, say_items
from reconciler.cli.terminal import LiveLines, is_terminal, say
from reconciler.cli.texts import amount, table
from reconciler.decide.attempts import Memory
from reconciler.model.identity import Kind
from reconciler.model.objects import Object

if TYPE_CHECKING:
    from core.runtime.ports import Stats
    from core.runtime.table import RuntimeTable

HEAD: Final = ("NAME", "CPU", "MEMORY", "PIDS", "DISK", "LOG", "RESTARTS")
SAMPLE: Final = 0.5
"""Seconds between the two looks of which a share of the processor is made."""
EVERY: Final = 2.0
MOST_FILES: Final = 100_000
"""Files of one writable layer that are counted; of more the sum is said to be at least so much."""


@dataclass(frozen=True, slots=True)
class Use:
    """What one container uses: cpu in percent of one core, memory, disk and log in bytes."""

    name: str
    cpu: float
    memory: int
    pids: int
    disk: int | None
    """Of the writable layer; None: it cannot be told from the image's files."""
    log: int
    restarts: int

    def to_json(self) -> dict[str, Any]:
        """The shape of `-o json`."""
        return {
            "name": self.name,
            "cpuPercent": round(self.cpu, 1),
            "memory": self.memory,
            "pids": self.pids,
            "disk": self.disk,
            "log": self.log,
            "restarts": self.restarts,
        }


@click.command("top")
@click.option("-w", "--watch", is_flag=True, help="Go on, every two seconds.")
@output_option("json", "yaml")
@pass_node
def command(node: Node, watch: bool, output: str | None) -> int:
    """What each running container uses: processor (percent of one core), memory, processes, disk, log, restarts.

    \b
    Examples:
      reconciler top
      reconciler top -w
    """
    if watch and output:
        raise click.UsageError("-w goes without -o.")
    look = _Looks(node)
    uses = look.again(SAMPLE)
    if output:
        say_items([use.to_json() for use in uses], output)
        return 0
    show = _Screen()
    show.draw(uses)
    while watch:
        show.draw(look.again(EVERY))
    return 0


class _Screen:
    """Draws in place on a terminal, one table after another elsewhere."""

    def __init__(self) -> None:
        import sys

        self._live = LiveLines(sys.stdout) if is_terminal(sys.stdout) else None

    def draw(self, uses: list[Use]) -> None:
        """Show them."""
        text = table(HEAD, [_row(use) for use in uses])
        if self._live is None:
            say(text)
        else:
            self._live.draw(text.splitlines())


def _row(use: Use) -> tuple[str, ...]:
    disk = "-" if use.disk is None else amount(use.disk)
    return (use.name, f"{use.cpu:.1f} %", amount(use.memory), str(use.pids), disk, amount(use.log), str(use.restarts))


class _Looks:
    """Two looks at a time, some seconds apart; the second is the first of the next."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._store = node.store()
        self._runtimes = _runtimes(node) if self._store is not None else None
        self._before: dict[str, tuple[float, float]] = {}
        if self._runtimes is not None:
            self._seen(self._runtimes)

    def again(self, seconds: float) -> list[Use]:
        """What they used in these seconds."""
        if self._runtimes is None:
            return []
        self._node.clock.sleep(seconds)
        before = self._before
        seen = self._seen(self._runtimes)
        return [self._use(obj, id, stats, before.get(id)) for obj, id, stats in seen]

    def _seen(self, runtimes: RuntimeTable) -> list[tuple[Object, str, Stats]]:
        found = []
        self._before = {}
        for obj in self._store.list(Kind.CONTAINER) if self._store is not None else ():
            memory = Memory.of(obj.record)
            for made in (one for one in (memory.previous, memory.current) if one is not None):
                id = made.id(obj.name)
                try:
                    stats = runtimes.shim(id).stats(id)
                except NotFound:
                    continue  # it does not run
                self._before[id] = (self._node.clock.monotonic(), stats.cpu_seconds)
                found.append((obj, id, stats))
                break
        return found

    def _use(self, obj: Object, id: str, stats: Stats, before: tuple[float, float] | None) -> Use:
        now = self._before[id]
        passed = 0.0 if before is None else now[0] - before[0]
        cpu = 100.0 * (now[1] - before[1]) / passed if before is not None and passed > 0 else 0.0
        paths = self._node.paths
        logs = sum(_size(path) for path in (paths.logs / obj.name).glob(f"{id}.log*"))
        disk = written(paths.state / "bundles" / id / "rootfs")
        return Use(obj.name, cpu, stats.memory, stats.pids, disk, logs, Memory.of(obj.record).restarts)


def _runtimes(node: Node) -> RuntimeTable | None:
    from core import proc
    from core.process import Launcher
    from core.runtime.drivers import Ground, build_table

    if not (node.paths.state / "bundles").is_dir():
        return None  # nothing has ever run in this boot, and looking makes no folder
    ground = Ground(node.paths.state, node.paths.group, Launcher(), node.clock, proc.boot_id())
    return build_table(ground)


def written(root: Path) -> int | None:
    """The bytes on disk of what a container wrote into its root, when that is an overlay; None: it is none."""
    from core import proc

    mounted = next((one for one in proc.mounts(str(root)) if one.target == str(root)), None)
    options = {} if mounted is None else _options(mounted.options)
    if "upperdir" not in options:
        return None
    upper = Path(options["upperdir"])
    return sum(blocks for blocks, _ in zip(_blocks(upper), range(MOST_FILES), strict=False))


def _options(text: str) -> Mapping[str, str]:
    return dict(pair.partition("=")[::2] for pair in text.split(","))


def _blocks(folder: Path) -> Iterator[int]:
    """The bytes on disk of each file below; what goes meanwhile is left out."""
    for top, _, names in os.walk(folder):
        for name in names:
            yield _size(Path(top, name), on_disk=True)


def _size(path: Path, *, on_disk: bool = False) -> int:
    try:
        seen = os.lstat(path)
    except FileNotFoundError:
        return 0
    return seen.st_blocks * 512 if on_disk else seen.st_size
