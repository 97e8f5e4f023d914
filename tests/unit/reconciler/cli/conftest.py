"""A node's folders with a real store in them, and the command line run in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from reconciler.cli.main import run
from reconciler.model.objects import Object
from reconciler.store.port import Event, Put
from reconciler.store.sqlite import open_store


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass
class Cli:
    """`run(words)` gives exit code, stdout and stderr; `fill` puts objects and events into the store."""

    root: Path
    state: Path
    read: Callable[[], tuple[str, str]]

    def __call__(self, *words: str | Path) -> Done:
        """Run a command on this node."""
        code = run(["--root", str(self.root), "--state", str(self.state), *map(str, words)])
        return Done(code, *self.read())

    def fill(self, *objects: Object, events: tuple[Event, ...] = ()) -> None:
        """Store objects with their status as they are."""
        store = open_store(self.root / "store.db", create=True)
        assert store is not None
        for obj in objects:
            store.commit([Put(obj, 0)])
        for event in events:
            store.add_event(event)
        store.close()


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line on an empty node."""
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("ROOT", "STATE", "CONFIG"):
        monkeypatch.delenv(f"RECONCILER_{name}", raising=False)

    def read() -> tuple[str, str]:
        said = capsys.readouterr()
        return said.out, said.err

    return Cli(tmp_path / "root", tmp_path / "state", read)
