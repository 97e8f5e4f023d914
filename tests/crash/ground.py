"""What the crash tests stand on: a node, what it is to be, an engine to kill, and a wait for the checker's yes.

Each container's program appends its attempt's id, which it reads from its own mount table (the secret's mount names
it), to a file of the node before anything else: a second start of one attempt stands there for ever.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from reconciler.model.identity import Key
from reconciler.store import sqlite
from reconciler.store.sqlite import SqliteStore
from tests import leftovers
from tests.conftest import Node
from tests.crash import checker

PROGRAM: Final = r"""
trap 'exit 0' TERM
sed -n 's|.*/attempts/\([^/ ]*\)/secrets.*|\1|p' /proc/self/mountinfo | head -n 1 >> /ledger/starts
while :; do sleep 1000 & wait $!; done
"""
NAMES: Final = tuple(f"c{n}" for n in range(10))
SHARED: Final = "shared"
IN_SHARED: Final[Mapping[str, str]] = dict.fromkeys(NAMES[:4], SHARED)
BOUND: Final = 60.0
"""Seconds within which a node must be what it should, whatever was killed."""


def documents(
    host: str, ledger: Path, containers: Mapping[str, str], images: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The manifests of images, a volume, a secret, a shared sandbox and these containers (name → version)."""
    made = [
        *(_object("Image", name, {"ref": f"{host}/{name}:latest"}) for name in images),
        _object("Image", "busybox", {"ref": f"{host}/busybox:latest"}),
        _object("Secret", "mark", {"stringData": {"key": "value"}}),
        _object("Volume", "data", {"retain": False}),
        _object("Sandbox", SHARED, {"runtime": "runc", "network": {"mode": "none"}}),
    ]
    return made + [_container(name, version, ledger) for name, version in containers.items()]


def _object(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _container(name: str, version: str, ledger: Path) -> dict[str, Any]:
    home = {"sandbox": IN_SHARED[name]} if name in IN_SHARED else {"network": {"mode": "none"}}
    mounts = [
        {"path": "/ledger", "bind": {"source": str(ledger), "create": True}},
        {"path": "/run/mark", "secret": "mark"},
        {"path": "/data", "volume": "data"},
    ]
    spec = {
        "image": "busybox",
        **home,
        "command": ["sh", "-c", PROGRAM],
        "env": [{"name": "VERSION", "value": version}],
        "mounts": mounts,
        "stop": {"grace": "3s"},
    }
    return _object("Container", name, spec)


@dataclass(slots=True)
class Ground:
    """A node, driven by its command line, with the registry at `host`."""

    node: Node
    host: str
    containers: dict[str, str] = field(default_factory=dict)
    agent: subprocess.Popen[bytes] | None = None
    words: tuple[str, ...] = ()
    """Further words for the agent's command line."""
    away: frozenset[Key] = frozenset()
    """Objects that ask for what is out of reach."""
    _store: SqliteStore | None = None

    @property
    def place(self) -> leftovers.Place:
        """Where the node is."""
        return self.node.place

    @property
    def ledger(self) -> Path:
        """The folder with the file of starts."""
        return self.place.folder / "ledger"

    @property
    def manifest(self) -> Path:
        """The file with all manifests."""
        return self.place.folder / "all.yaml"

    @property
    def store(self) -> SqliteStore:
        """The node's store, read by the test itself."""
        if self._store is None:
            self._store = sqlite.open_store(self.node.root / "store.db", create=False)
            assert self._store is not None, "nothing has been applied yet"
        return self._store

    def want(self, containers: Mapping[str, str], images: Sequence[str] = ()) -> None:
        """Write what is to be; tell nobody."""
        self.containers = dict(containers)
        made = documents(self.host, self.ledger, self.containers, images)
        self.manifest.write_text("\n---\n".join(map(json.dumps, made)))

    @property
    def apply_words(self) -> tuple[str, ...]:
        """`apply` of what is to be, and of nothing else."""
        return ("apply", "-f", str(self.manifest), "--set", "crash", "--prune", "--timeout", "60s")

    def apply(self) -> str:
        """A plain apply, which must succeed; what it said."""
        done = self.node.cli(*self.apply_words, timeout=BOUND + 30)
        assert done.returncode == 0, f"apply ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start_agent(self) -> None:
        """A new agent; returns when it holds the lock or has ended."""
        self.agent = self.node.spawn("agent", *self.words)
        pid = self.agent.pid
        deadline = time.monotonic() + BOUND
        while f'"pid": {pid},' not in _text(self.node.state / "engine.lock"):
            if self.agent.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the agent does not start:\n{_text(self.place.folder / 'agent.log')[-3000:]}")
            time.sleep(0.01)

    def kill_agent(self) -> None:
        """SIGKILL, and its end awaited."""
        if self.agent is not None:
            self.agent.kill()
            self.agent.wait()
            self.node.running.remove(self.agent)
            self.agent = None

    def stop_agent(self) -> None:
        """SIGTERM, which it must follow within its bound."""
        if self.agent is not None:
            self.agent.send_signal(signal.SIGTERM)
            assert self.agent.wait(BOUND) == 0
            self.node.running.remove(self.agent)
            self.agent = None

    def wanted(self) -> checker.Wanted:
        """What the checker compares with."""
        return checker.Wanted(
            self.place,
            self.containers,
            frozenset({SHARED}),
            self.ledger / "starts",
            {name: home for name, home in IN_SHARED.items() if name in self.containers},
            frozenset() if self.agent is None else frozenset({self.agent.pid}),
            self.away,
        )

    def converged(self, seconds: float = BOUND) -> float:
        """Wait until the checker has no fault, twice in a row; the seconds it took. Raises with the faults."""
        began = time.monotonic()
        calm = False
        while True:
            found = checker.faults(self.wanted(), self.store)
            if not found and calm:
                return time.monotonic() - began
            calm = not found
            if time.monotonic() - began > seconds:
                raise AssertionError(f"not converged after {seconds:g} s:\n  " + "\n  ".join(found[:40]))
            time.sleep(0.1)

    def delete_all(self) -> None:
        """Delete the whole set; nothing at all may be left."""
        done = self.node.cli("delete", "--set", "crash", timeout=BOUND + 30)
        assert done.returncode == 0, f"delete ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        self.stop_agent()
        self.containers = {}
        left = [*checker.gone(self.place), *checker.objects_left(self.store)]
        assert not left, "left over after delete:\n  " + "\n  ".join(left[:40])

    def wipe(self) -> None:
        """A new node on which nothing has ever been, after `delete_all`."""
        self.close()
        for folder in (self.node.root, self.node.state, self.ledger):
            shutil.rmtree(folder)

    def close(self) -> None:
        """Let go of the store."""
        if self._store is not None:
            self._store.check()
            self._store.close()
            self._store = None


def _text(path: Path) -> str:
    return leftovers.read_bytes(str(path)).decode(errors="replace")


@contextmanager
def ground(node: Node, host: str) -> Iterator[Ground]:
    """A ground, whose store is let go of, checked, at the end."""
    made = Ground(node, host)
    try:
        yield made
    finally:
        made.close()
