"""The command line beside a running agent, and watching what it does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Node

pytestmark = pytest.mark.root

VOLUMES = "".join(
    f"apiVersion: reconciler/v1\nkind: Volume\nmetadata: {{name: {name}}}\nspec: {{retain: false}}\n---\n"
    for name in "ab"
)


def until(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether something becomes so in time."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


def test_an_agent_does_the_work_that_an_apply_waits_for(node: Node, tmp_path: Path) -> None:
    (tmp_path / "volumes.yaml").write_text(VOLUMES)
    watch = node.spawn("get", "volumes", "-w")
    seen = node.place.folder / "get.log"
    node.spawn("agent")
    assert until(lambda: "agent running" in node.cli("status", "--oneline").stdout)

    done = node.cli("apply", "-f", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Converged: 2 objects, 2 created, in " in done.stdout
    assert "no agent" not in done.stdout
    assert "Engine  the agent with pid " in node.cli("status").stdout
    assert until(lambda: seen.read_text().count(" True ") >= 2), seen.read_text()

    again = node.cli("apply", "-f", tmp_path)
    assert "Converged: 2 objects, nothing to do, in " in again.stdout

    assert node.cli("delete", "volume", "a", "b").returncode == 0
    assert until(lambda: {"a  gone", "b  gone"} <= set(seen.read_text().splitlines())), seen.read_text()
    assert seen.read_text().count("NAME") == 1
    assert watch.poll() is None


def test_a_second_agent_is_told_of_the_first(node: Node) -> None:
    node.spawn("agent")
    assert until(lambda: "agent running" in node.cli("status", "--oneline").stdout)
    done = node.cli("agent", timeout=20)
    assert done.returncode == 1
    assert done.stderr.startswith("error: busy: this node's engine is the agent with pid ")


def test_a_node_without_a_service_is_uninstalled_as_well(node: Node, tmp_path: Path) -> None:
    (tmp_path / "volumes.yaml").write_text(VOLUMES)
    agent = node.spawn("agent")
    assert until(lambda: "agent running" in node.cli("status", "--oneline").stdout)
    assert node.cli("apply", "-f", tmp_path).returncode == 0

    busy = node.cli("agent", "uninstall", "--yes")
    assert busy.returncode == 1
    assert f"(kill {agent.pid}), and uninstall then." in busy.stderr
    node.stop()

    (node.root / "volumes/a/file").write_text("precious")
    asked = node.cli("agent", "uninstall")
    assert asked.returncode == 1
    assert "there is data in 1 volume (a): nothing was removed" in asked.stderr
    assert (node.root / "store.db").exists()

    done = node.cli("agent", "uninstall", "--yes")
    assert done.returncode == 0, done.stderr
    assert "Deleted: 2 objects.\n" in done.stdout
    assert not node.root.exists()
    assert not node.state.exists()
    assert f"nothing is in {node.root}" in node.cli("agent", "uninstall").stdout


def test_a_watched_status_is_printed_anew_when_something_changes(node: Node, tmp_path: Path) -> None:
    (tmp_path / "volumes.yaml").write_text(VOLUMES)
    node.spawn("agent")
    node.spawn("status", "-w", "--oneline")
    log = node.place.folder / "status.log"
    assert until(lambda: "0/0 ready, agent running" in log.read_text()), log.read_text()
    assert node.cli("apply", "-f", tmp_path).returncode == 0
    assert until(lambda: log.read_text().endswith("2/2 ready, agent running\n")), log.read_text()
    assert node.cli("delete", "volume", "a", "b").returncode == 0
