"""Each file of root lost or damaged in each way: `python -m tests.crash.losses HOST [CLASS…]`, without CLASS: all.

A node with containers that run; the agent is killed, so that the store has a log; one file is deleted, halved, emptied
or scrambled; the next agent must be ready within 10 s, say what was lost where somebody should know, and bring the node
back to what it should be, under the same processes. The node is not put back by the test: the next loss meets what the
agent made of the one before.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from reconciler.model.identity import Key, Kind
from tests import leftovers
from tests.conftest import Node
from tests.crash.checker import Ids, start_time
from tests.crash.ground import Ground, ground

READY_SECONDS: Final = 10.0
CONVERGED_SECONDS: Final = 60.0
RUNNING: Final = ("c0", "c4")
"""One in the shared sandbox, one in a private one."""


def _delete(path: Path) -> None:
    path.unlink()


def _halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _scramble(path: Path) -> None:
    data = random.Random(path.name).randbytes(path.stat().st_size)
    with open(path, "r+b") as file:  # the same file: what holds it open sees it
        file.write(data)


SAID_SECONDS: Final = 3.0
"""Events are written a moment after what they tell of."""

DAMAGES: Final[Mapping[str, Callable[[Path], None]]] = {
    "deleted": _delete,
    "halved": _halve,
    "emptied": _empty,
    "scrambled": _scramble,
}
# Which files, below root; what the agent must say of them when they are damaged (any of these reasons; none: nothing).
CLASSES: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    "store": ("store.db", frozenset({"StoreRebuilt"})),
    # What a log held is lost with it: told where applied/ has a later commit; else the node knows better anyway.
    "store-log": ("store.db-wal", frozenset()),
    "store-index": ("store.db-shm", frozenset()),
    "applied": ("applied/*/*.json", frozenset({"AppliedRewritten"})),
    "ledger": ("snapshots/overlayfs/ledger.db", frozenset({"LedgerRebuilt"})),
    "ledger-log": ("snapshots/overlayfs/ledger.db-wal", frozenset()),
    "ledger-index": ("snapshots/overlayfs/ledger.db-shm", frozenset()),
    "other-ledger": ("snapshots/native/ledger.db*", frozenset()),
    "note": ("snapshots/overlayfs/*/line.json", frozenset()),
    "blob": ("content/blobs/*/*", frozenset({"ContentLost"})),
    "log": ("logs/*/*.log", frozenset()),
    "lock": ("**/*lock*", frozenset()),
}
"""A container's own files (roots, volumes) are not the agent's to bring back."""


@dataclass(slots=True)
class Losses:
    """Loses files on a ground; keeps how long agents took to be ready."""

    ground: Ground
    ready: list[float] = field(default_factory=list)
    count: int = 0

    def begin(self) -> None:
        """A node on which containers run."""
        self.ground.want(dict.fromkeys(RUNNING, "1"))
        self._start()
        self.ground.apply()
        self.ground.converged()

    def files(self, name: str) -> list[Path]:
        """The files of a class that are there now."""
        root = self.ground.node.root
        found = [path for path in sorted(root.glob(CLASSES[name][0])) if path.is_file()]
        return [path for path in found if not {"fs", "work", "volumes"} & set(path.relative_to(root).parts)]

    def lose(self, name: str, number: int, damage: str) -> bool:
        """Lose file `number` of a class; raises `AssertionError`. False: there is no such file (any more)."""
        before = self._processes()
        self._let_go()  # before the agent ends: who closes last takes the store's log along
        self.ground.kill_agent()
        files = self.files(name)
        if number >= len(files):
            self._start()
            return False
        path = files[number]
        what = f"{path.relative_to(self.ground.node.root)} {damage}"
        if damage not in ("deleted",) and path.stat().st_size == 0:
            damage = "deleted"
        DAMAGES[damage](path)
        try:
            self._start()
            self.ground.converged(CONVERGED_SECONDS)
            assert self._processes() == before, f"processes were {before}, and are {self._processes()}"
            expected = CLASSES[name][1]
            said = self._said(expected)
            if expected and (name != "ledger" or damage == "deleted"):
                assert expected & said, f"of {sorted(expected)} nothing was said; said was {sorted(said)}"
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}\n{self._log()[-2000:]}") from error
        self.count += 1
        print(f"{what}: ready in {self.ready[-1]:.2f} s", flush=True)
        return True

    def end(self) -> None:
        """Delete everything; nothing is left but what was set aside."""
        self.ground.delete_all()

    def _start(self) -> None:
        """An agent; returns when it says that it is ready. Its log begins anew."""
        place = self.ground.place.folder
        (place / "agent.log").unlink(missing_ok=True)
        address = place / "notify"
        address.unlink(missing_ok=True)
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as told:
            told.bind(str(address))
            told.settimeout(READY_SECONDS)
            began = time.monotonic()
            self.ground.agent = self.ground.node.spawn("agent", env={"NOTIFY_SOCKET": str(address)})
            while True:
                left = began + READY_SECONDS - time.monotonic()
                assert left > 0, f"not ready within {READY_SECONDS:g} s:\n{self._log()}"
                told.settimeout(left)
                try:
                    words = told.recv(4096)
                except TimeoutError:
                    continue
                if b"READY=1" in words:
                    break
        self.ready.append(time.monotonic() - began)

    def _log(self) -> str:
        return leftovers.read_bytes(str(self.ground.place.folder / "agent.log")).decode(errors="replace")

    def _said(self, expected: frozenset[str]) -> set[str]:
        """The reasons of what this life of the agent has told, once one of those expected is among them, or soon."""
        deadline = time.monotonic() + SAID_SECONDS
        while not (said := self._said_now()) & expected and expected and time.monotonic() < deadline:
            time.sleep(0.1)
        return said

    def _said_now(self) -> set[str]:
        """What it has told of the node and its images so far."""
        told = {event.reason for event in self.ground.store.events() if event.key.kind in (Kind.NODE, Kind.IMAGE)}
        return {reason for reason in told if reason in self._log()} | ({"ContentLost"} & told)

    def _let_go(self) -> None:
        """Close the store without looking at it."""
        if self.ground._store is not None:
            self.ground._store.close()
            self.ground._store = None

    def _processes(self) -> dict[str, tuple[int, int | None]]:
        """Pid and start time of each container's first process."""
        found = {}
        for name in Ids.of(self.ground.store.list()).tasks:
            obj = self.ground.store.get(Key(Kind.CONTAINER, name))
            assert obj is not None
            pid = int(obj.status["pid"])
            found[name] = (pid, start_time(pid))
        return found


def lose_each(losses: Losses, names: Sequence[str], damages: Sequence[str], most: int) -> None:
    """Up to `most` files of each class, in each way."""
    for name in names:
        for damage in damages:
            for number in range(most):
                if not losses.lose(name, number, damage):
                    break


def main(words: Sequence[str]) -> int:
    """The command line in this file's docstring."""
    place = leftovers.Place(Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp")))
    node = Node(place)
    try:
        with ground(node, words[0]) as made:
            losses = Losses(made)
            losses.begin()
            lose_each(losses, words[1:] or list(CLASSES), list(DAMAGES), 1000)
            losses.end()
            print(f"{losses.count} losses; ready within {max(losses.ready):.2f} s")
    finally:
        node.stop()
        leftovers.clean(place)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
