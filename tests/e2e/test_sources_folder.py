"""A folder of the node as a source, and agents that look once."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Node
from tests.e2e.git_stage import volume
from tests.e2e.workloads import document, eventually
from tests.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "desired"
    made.mkdir()
    return made


@pytest.fixture
def tidy(node: Node, folder: Path) -> Iterator[Node]:
    """A node whose Sources are gone when the test is over."""
    yield node
    sources = json.loads(node.cli("get", "sources", "-o", "json").stdout)["items"]
    names = [f"source/{one['metadata']['name']}" for one in sources]
    if names:
        done = node.cli("delete", *names, "--timeout", "30s")
        assert done.returncode == 0, done.stdout + done.stderr


def names(node: Node, kind: str = "volumes") -> list[str]:
    """The names of the objects of a kind."""
    return [line.split("/")[1] for line in node.cli("get", kind, "-o", "name").stdout.splitlines()]


def test_a_folder_is_watched_and_applied_whole_or_not_at_all(tidy: Node, folder: Path) -> None:
    (folder / "a.yaml").write_text(volume("one"))
    tidy.spawn("agent")
    eventually(lambda: names(tidy, "nodes"), "the agent is there")
    added = tidy.cli("source", "add", "local", "--folder", folder, "--interval", "1h")
    assert added.returncode == 0, added.stdout + added.stderr
    assert names(tidy) == ["one"]
    (folder / "b.yaml").write_text(volume("two"))
    eventually(lambda: names(tidy) == ["one", "two"], "what is new is seen by itself")
    (folder / "b.yaml").write_text("apiVersion: reconciler/v1\nkind: Volume\nmetadata: {name: Two}\n")
    (folder / "c.yaml").write_text(volume("three"))
    shown = eventually(
        lambda: "b.yaml:3:18" in (text := tidy.cli("get", "source", "local", "-o", "wide").stdout) and text, "refused"
    )
    assert "Invalid" in shown
    assert names(tidy) == ["one", "two"]
    (folder / "b.yaml").unlink()
    eventually(lambda: names(tidy) == ["one", "three"], "the good one is applied")
    away = folder.rename(folder.with_name("away"))
    tidy.cli("source", "sync", "local", "--timeout", "10s")
    eventually(lambda: "FetchingNotFound" in tidy.cli("get", "sources").stdout, "it is gone")
    away.rename(folder)
    eventually(lambda: "Applied" in tidy.cli("get", "sources").stdout, "it is back, and seen by itself")
    for path in folder.iterdir():
        path.unlink()
    eventually(lambda: "PruneRefused" in tidy.cli("get", "sources").stdout, "an emptied folder removes nothing")
    assert names(tidy) == ["one", "three"]


def test_an_agent_that_looks_once_fetches_each_source_once_and_says_how_it_went(tidy: Node, folder: Path) -> None:
    (folder / "a.yaml").write_text(volume("one"))
    said = tidy.cli("source", "add", "local", "--folder", folder)
    assert (said.returncode, "waits for an agent" in said.stdout) == (0, True)
    assert names(tidy) == []
    assert tidy.cli("agent", "--once").returncode == 0
    assert names(tidy) == ["one"]
    assert "local-1" in tidy.cli("history").stdout
    (folder / "a.yaml").write_text("]")
    assert tidy.cli("agent", "--once").returncode == 1
    assert names(tidy) == ["one"]
    (folder / "a.yaml").unlink()
    folder.rmdir()
    assert tidy.cli("agent", "--once").returncode == 1, "a folder that is gone"
    assert names(tidy) == ["one"]


def test_apply_of_a_source_without_an_agent_fetches_nothing_and_says_so(tidy: Node, folder: Path) -> None:
    (folder / "a.yaml").write_text(volume("one"))
    manifest = folder.parent / "source.yaml"
    manifest.write_text(json.dumps(document("Source", "local", {"folder": str(folder)})))
    done = tidy.cli("apply", "-f", manifest)
    assert done.returncode == 0, done.stderr
    assert "source/local waits for an agent" in done.stdout
    assert "Unknown" in tidy.cli("get", "sources").stdout
    assert names(tidy) == []
    assert "no agent on this node" in tidy.cli("source", "sync", "local").stderr


def test_a_lost_store_is_filled_again_from_applied_and_the_source_and_removes_nothing_before(
    tidy: Node, folder: Path
) -> None:
    (folder / "a.yaml").write_text(volume("one"))
    (folder / "b.yaml").write_text(volume("two"))
    tidy.cli("source", "add", "local", "--folder", folder)
    assert tidy.cli("agent", "--once").returncode == 0
    for path in tidy.root.glob("store.db*"):
        path.unlink()
    moved = folder.with_name("away")
    folder.rename(moved)
    assert tidy.cli("agent", "--once").returncode == 1, "the source cannot be read"
    assert names(tidy, "sources") == ["local"]
    assert (tidy.root / "volumes/one").is_dir(), "nothing was removed"
    moved.rename(folder)
    assert tidy.cli("agent", "--once").returncode == 0
    assert names(tidy) == ["one", "two"]


def test_the_example_of_an_edge_node_becomes_what_it_says(tidy: Node, registry: Registry) -> None:
    example = Path(__file__).resolve().parents[2] / "manifests/edge-node"
    done = tidy.cli("apply", "--dry-run", "-f", example / "source.yaml")
    assert done.returncode == 0, done.stderr
    options = ["--path", "nodes/edge", "--value", f"registry={registry.host}", "--value", "greeting=hello"]
    said = tidy.cli("source", "add", "edge", "--folder", example, *options)
    assert said.returncode == 0, said.stderr
    once = tidy.cli("agent", "--once")
    assert once.returncode == 0, once.stderr
    log = tidy.root / "volumes/greetings/log"
    eventually(log.exists, "the container runs")
    assert log.read_text().startswith("hello from ")
    assert "source/edge at revision folder:" in tidy.cli("why", "container/greeter").stdout
