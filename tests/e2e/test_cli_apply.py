"""apply, diff, delete and what reads, as one person would use them: real store, real engine, real containers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import Node
from tests.registry import Registry

pytestmark = pytest.mark.root


def manifest(registry: Registry, *, tag: str = "latest", word: str = "hello", secret: str = "hunter2") -> str:
    """An image, a sandbox, a container with a secret and a volume."""
    return f"""\
apiVersion: reconciler/v1
kind: Image
metadata: {{name: box}}
spec: {{ref: "{registry.host}/busybox:{tag}"}}
---
apiVersion: reconciler/v1
kind: Sandbox
metadata: {{name: web}}
spec: {{runtime: runc, network: {{mode: none}}}}
---
apiVersion: reconciler/v1
kind: Volume
metadata: {{name: data}}
spec: {{retain: true}}
---
apiVersion: reconciler/v1
kind: Secret
metadata: {{name: login}}
spec: {{stringData: {{password: {secret}}}}}
---
apiVersion: reconciler/v1
kind: Container
metadata: {{name: web, labels: {{app: web}}}}
spec:
  image: box
  sandbox: web
  command: ["sh", "-c", "trap 'exit 0' TERM; echo {word}; echo oops >&2; sleep 1000 & wait"]
  mounts: [{{path: /login, secret: login}}, {{path: /data, volume: data}}]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "web.yaml"
    path.write_text(text)
    return path


def test_from_yaml_to_a_container_and_back(node: Node, registry: Registry, tmp_path: Path) -> None:
    file = write(tmp_path, manifest(registry))
    assert node.cli("diff", "-f", file).returncode == 1
    done = node.cli("apply", "-f", file)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^create +image/box +unknown ", done.stdout, re.MULTILINE)
    assert re.search(r"^Converged: 5 objects, 5 created, in [0-9.]+ s\.$", done.stdout, re.MULTILINE)
    assert done.stdout.splitlines()[-1].startswith("no agent on this node: nothing will restart, probe or start")
    assert node.cli("status").returncode == 0
    assert node.cli("wait", "container/web", "--timeout", "1s").returncode == 0

    said = node.cli("logs", "web")
    assert (said.stdout, said.stderr) == ("hello\n", "oops\n")
    assert node.cli("exec", "web", "--", "cat", "/login/password").stdout == "hunter2"
    assert node.cli("exec", "web", "--", "sh", "-c", "exit 42").returncode == 42

    again = node.cli("apply", "-f", file)
    assert (again.returncode, "Nothing to change: 5 objects." in again.stdout) == (0, True)
    assert node.cli("diff", "-f", file).returncode == 0

    write(tmp_path, manifest(registry, word="hallo", secret="hunter3"))
    diff = node.cli("diff", "-f", file)
    assert diff.returncode == 1
    assert "replace  container/web" in diff.stdout
    assert "; 1 restart" in diff.stdout
    assert "  ± spec.stringData.password\n  - ***\n  + ***\n" in diff.stdout
    assert "hunter" not in diff.stdout
    changed = node.cli("apply", "-f", file, "-o", "json")
    assert changed.returncode == 0, changed.stderr
    items = {item["kind"]: item for item in json.loads(changed.stdout)["items"]}
    assert items["Secret"]["spec"] == {"stringData": {"password": "***"}}
    assert items["Container"]["status"]["state"] == "Running"
    assert node.cli("logs", "web", "--previous").stdout == "hello\n"
    assert node.cli("exec", "web", "--", "cat", "/login/password").stdout == "hunter3"

    gone = node.cli("delete", "-f", file)
    assert gone.returncode == 0, gone.stderr
    assert f"volume/data: its folder stays: {node.root}/volumes/data" in gone.stdout
    left = json.loads(node.cli("get", "all", "-o", "json").stdout)["items"]
    assert [item["kind"] for item in left if item["kind"] != "Node"] == []


def test_a_tag_that_is_not_there_is_told_in_two_lines_and_holds_nothing_else_up(
    node: Node, registry: Registry, tmp_path: Path
) -> None:
    file = write(tmp_path, manifest(registry, tag="9"))
    done = node.cli("apply", "-f", file)
    assert done.returncode == 1
    assert re.search(
        rf"^error: image/box: fetching: not found: .*busybox:9.*\n       at {file}:1  ·  .*latest.*  ·  next try ",
        done.stderr,
        re.MULTILINE,
    )
    assert "Not converged: 5 objects, 2 stalled, after " in done.stdout
    assert node.cli("get", "volume", "data").returncode == 0
    assert node.cli("status").returncode == 1
    assert node.cli("wait", "container/web", "--timeout", "1ms").returncode == 3
    assert node.cli("delete", "-f", file, "--purge").returncode == 0
    assert not (node.root / "volumes/data").exists()


def test_a_registry_that_does_not_answer_is_a_timeout(node: Node, tmp_path: Path) -> None:
    spec = 'apiVersion: reconciler/v1\nkind: Image\nmetadata: {name: box}\nspec: {ref: "127.0.0.1:9/box:1"}\n'
    file = write(tmp_path, spec)
    done = node.cli("apply", "-f", file, "--timeout", "6s")  # the first try alone connects three times
    assert done.returncode == 3
    assert "Not converged: 1 object, 1 still in progress, after " in done.stdout
    assert "error: image/box: fetching: unavailable: " in done.stderr
    assert node.cli("delete", "image", "box").returncode == 0


def test_what_is_being_deleted_and_wanted_again_is_made_anew(node: Node, tmp_path: Path) -> None:
    file = write(tmp_path, "apiVersion: reconciler/v1\nkind: Volume\nmetadata: {name: a}\nspec: {retain: false}\n")
    assert node.cli("apply", "-f", file).returncode == 0
    before = json.loads(node.cli("get", "volume", "a", "-o", "json").stdout)["metadata"]["uid"]
    assert node.cli("delete", "volume", "a", "--no-wait").returncode == 0
    refused = node.cli("apply", "-f", file, "--no-wait")
    assert (refused.returncode, "error: busy: volume/a is being deleted" in refused.stderr) == (1, True)
    again = node.cli("apply", "-f", file)
    assert (again.returncode, "being deleted: made anew when it is gone" in again.stdout) == (0, True), again.stderr
    assert json.loads(node.cli("get", "volume", "a", "-o", "json").stdout)["metadata"]["uid"] != before
    assert node.cli("delete", "-f", file).returncode == 0


def test_a_set_without_documents_is_emptied(node: Node, tmp_path: Path) -> None:
    file = write(tmp_path, "apiVersion: reconciler/v1\nkind: Volume\nmetadata: {name: a}\nspec: {retain: false}\n")
    assert node.cli("apply", "-f", file, "--set", "edge").returncode == 0
    write(tmp_path, "# nothing any more\n")
    done = node.cli("apply", "-f", file, "--set", "edge", "--prune")
    assert done.returncode == 0, done.stderr
    assert "Converged: 0 objects, 1 removed, in " in done.stdout
    assert node.cli("get", "volume", "a").returncode == 1
