"""Completion as bash does it: the script is sourced by a real bash, and its function is called for a line."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import leftovers
from tests.conftest import COMMAND, Node
from tests.unit.reconciler.cli.objects import bad_image, job, login, web

HARNESS = """
source <({command} completion bash)
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${{#COMP_LINE}}
compopt() {{ echo "compopt-$2"; }}
_reconciler_completion {command}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def filled(tmp_path: Path) -> Node:
    """A node with a store, and no engine."""
    from reconciler.store.port import Put
    from reconciler.store.sqlite import open_store

    node = Node(leftovers.Place(tmp_path / "node"))
    node.root.mkdir(parents=True, mode=0o700)
    store = open_store(node.root / "store.db", create=True)
    assert store is not None
    for obj in (web(), job(), bad_image(), login()):
        store.commit([Put(obj, 0)])
    store.close()
    return node


def offered(node: Node, *words: str) -> set[str]:
    """What bash offers after `reconciler WORDS`."""
    script = HARNESS.format(command=COMMAND)
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", "reconciler", *words],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "RECONCILER_ROOT": str(node.root), "RECONCILER_STATE": str(node.state)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return set(done.stdout.split("\n")) - {""}


def test_bash_offers_commands_options_kinds_names_and_containers(filled: Node) -> None:
    assert {"apply", "why", "graph", "completion"} <= offered(filled, "")
    assert offered(filled, "comp") == {"completion"}
    assert {"container", "secret", "all"} <= offered(filled, "get", "")
    assert offered(filled, "get", "container", "") == {"web", "job"}
    assert offered(filled, "get", "containers", "w") == {"web"}
    assert offered(filled, "logs", "") == {"web", "job"}
    assert offered(filled, "stop", "w") == {"web"}
    assert offered(filled, "source", "res") == {"resume"}
    assert offered(filled, "why", "") == {"image/web", "container/job", "container/web", "secret/login"}
    assert offered(filled, "why", "container/j") == {"container/job"}
    assert offered(filled, "delete", "container", "job", "") == {"web", "job"}
    assert offered(filled, "get", "container", "-o", "") == {"wide", "json", "yaml", "name"}
    assert "--timeout" in offered(filled, "apply", "--t")
    assert offered(filled, "apply", "-f", "man") == {"compopt-default"}
    assert offered(filled, "completion", "") == {"bash", "zsh", "fish"}


def test_where_there_is_no_store_nothing_is_offered_and_nothing_is_made(tmp_path: Path) -> None:
    node = Node(leftovers.Place(tmp_path / "none"))
    assert offered(node, "logs", "") == set()
    assert not node.root.exists()


def test_a_damaged_store_spoils_no_line(filled: Node) -> None:
    (filled.root / "store.db").write_bytes(b"no database at all" * 1000)
    for path in filled.root.glob("store.db-*"):
        path.unlink()
    assert offered(filled, "why", "") == set()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_get_a_script_too(shell: str, tmp_path: Path) -> None:
    done = Node(leftovers.Place(tmp_path / "node")).cli("completion", shell)
    assert done.returncode == 0
    assert "_RECONCILER_COMPLETE" in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)


def test_a_tab_loads_nothing_heavy_and_is_as_quick_as_get(filled: Node) -> None:
    words = {"COMP_WORDS": "reconciler why cont", "COMP_CWORD": "2", "_RECONCILER_COMPLETE": "bash_complete"}
    place = {"RECONCILER_ROOT": str(filled.root), "RECONCILER_STATE": str(filled.state)}
    program = """
import json, sys
from reconciler.cli.main import cli
heavy = ("pydantic", "ruamel", "urllib3", "opentelemetry", "apscheduler", "git", "tenacity", "core.runtime.oci")
try:
    cli.main(prog_name="reconciler", standalone_mode=False)
finally:
    sys.stderr.write(json.dumps([name for name in heavy if name in sys.modules]))
"""
    environment = {**os.environ, **words, **place}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=30)
    assert done.stdout.split() == ["plain,container/job", "plain,container/web"]
    assert json.loads(done.stderr) == []
    assert cost([str(COMMAND)], environment) < 1.5 * cost([str(COMMAND), "get", "all"], {**os.environ, **place})


def cost(words: list[str], environment: dict[str, str]) -> float:
    """The least seconds of processor that a command took in five runs: what others do on the machine counts little."""
    taken = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, capture_output=True, env=environment, timeout=30)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)
