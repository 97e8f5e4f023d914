"""Sources on a node with an agent: repositories on a real server, and what becomes of their commits."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.workloads import Stage, document, eventually, stage
from tests.git_server import Content, HttpGit, Repository
from tests.registry import Registry

Documents = Mapping[str, Content]


def volume(name: str, **metadata: Any) -> str:
    """A whole manifest of the cheapest kind."""
    return json.dumps(document("Volume", name, {"retain": False}, **metadata)) + "\n"


def volumes(prefix: str, count: int) -> dict[str, Content]:
    """So many files with a volume each."""
    return {f"{prefix}-{n:02}.yaml": volume(f"{prefix}-{n:02}") for n in range(count)}


@dataclass(slots=True)
class Fleet:
    """A stage, and a git server whose repositories its Sources read."""

    stage: Stage
    server: HttpGit

    def repository(self, name: str) -> Repository:
        """A new repository on the server."""
        return Repository.create(self.server.folder / f"{name}.git")

    def add(self, name: str, *options: str, timeout: str = "40s") -> "Said":
        """`source add` of the server's repository of that name, looked at only when asked to."""
        url = self.server.url(f"{name}.git")
        return self.run("source", "add", name, "--git", url, "--interval", "1h", "--timeout", timeout, *options)

    def sync(self, name: str) -> "Said":
        """`source sync`."""
        return self.run("source", "sync", name, "--timeout", "40s")

    def run(self, *words: str) -> "Said":
        """Any command."""
        done = self.stage.node.cli(*words)
        return Said(done.returncode, done.stdout, done.stderr)

    def stalled(self, name: str) -> Mapping[str, Any]:
        """The Stalled condition of a Source, which must be there soon."""
        key = f"source/{name}"
        eventually(lambda: self.stage.condition(key, "Stalled").get("status") == "True", f"{key} is stalled")
        return self.stage.condition(key, "Stalled")

    def names(self, name: str) -> list[str]:
        """The names of what a Source manages and does not remove just now."""
        manager = f"source/{name}"
        return [one.name for one in self.stage.store.list() if one.manager == manager and one.deleted is None]

    def status(self, name: str) -> Mapping[str, Any]:
        """A Source's status."""
        return self.stage.status(f"source/{name}")


@dataclass(frozen=True, slots=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    def must(self) -> str:
        """Its output; it must have gone well."""
        assert self.code == 0, (self.code, self.out, self.err)
        return self.out


@contextmanager
def fleet(registry: Registry, folder: Path) -> Iterator[Fleet]:
    """A fleet of one node; at its end every Source is deleted, with all that it manages."""
    folder.mkdir(parents=True, exist_ok=True)
    with stage(registry) as one, HttpGit(folder) as server:
        made = Fleet(one, server)
        try:
            yield made
        finally:
            sources = [str(obj.key) for obj in one.store.list() if obj.kind == "Source" and obj.manager == "hand"]
            if sources:
                made.run("delete", *sources, "--timeout", "40s")
