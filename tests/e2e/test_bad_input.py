"""Manifests that are wrong: every fault of every file at once, with file, line and column; nothing applied, exit 1."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import leftovers
from tests.conftest import Node

HEAD = "apiVersion: reconciler/v1\n"
CASES = {
    "syntax": (HEAD + "kind: [\n", r"bad\.yaml:\d+:\d+: .*"),
    "unknown field": (
        HEAD + "kind: Image\nmetadata: {name: a}\nspec:\n  reff: x\n  ref: x\n",
        r"bad\.yaml:5:3: spec\.reff: unknown field; did you mean ref\?",
    ),
    "wrong type": (
        HEAD + "kind: Volume\nmetadata: {name: a}\nspec: {retain: 7}\n",
        r"bad\.yaml:4:16: spec\.retain: ",
    ),
    "unquoted number": (
        HEAD + "kind: Container\nmetadata: {name: a}\nspec:\n  image: x:1\n  network: {mode: none}\n"
        "  env: [{name: A, value: 1.10}]\n",
        r"bad\.yaml:7:26: spec\.env\[0\]\.value: .*quote",
    ),
    "unquoted yes": (
        HEAD + "kind: Volume\nmetadata: {name: a, labels: {ready: yes}}\nspec: {}\n",
        r"bad\.yaml:3:37: metadata\.labels\.ready: .*quote",
    ),
    "duplicate key": (HEAD + "kind: Volume\nmetadata: {name: a}\nspec: {}\nspec: {}\n", r"bad\.yaml:5:1: .*spec"),
    "duplicate object": (
        2 * f"---\n{HEAD}kind: Volume\nmetadata: {{name: a}}\nspec: {{}}\n",
        r"bad\.yaml:\d+:\d+: .*volume/a.*bad\.yaml:2",
    ),
    "missing file": (
        HEAD + "kind: Container\nmetadata: {name: a}\nspec:\n  image: x:1\n  network: {mode: none}\n"
        "  mounts: [{path: /x, file: none.conf}]\n",
        r"bad\.yaml:7:\d+: spec\.mounts\[0\]\.file: .*none\.conf",
    ),
    "file outside": (
        HEAD + "kind: Container\nmetadata: {name: a}\nspec:\n  image: x:1\n  network: {mode: none}\n"
        "  mounts: [{path: /x, file: ../../etc/passwd}]\n",
        r"bad\.yaml:7:\d+: spec\.mounts\[0\]\.file: ",
    ),
    "reference to nothing": (
        HEAD + "kind: Container\nmetadata: {name: a}\nspec: {image: nowhere, network: {mode: none}}\n",
        r"bad\.yaml:4:\d+: spec\.image: .*nowhere",
    ),
    "cycle": (
        "".join(
            f"---\n{HEAD}kind: Container\nmetadata: {{name: {one}}}\n"
            f"spec: {{image: 'x:1', network: {{mode: none}}, dependsOn: [{{container: {other}}}]}}\n"
            for one, other in (("a", "b"), ("b", "a"))
        ),
        r"bad\.yaml:10:69: spec\.dependsOn\[0\]\.container: a circle of dependencies: a .* → b .* → a ",
    ),
    "bomb": (
        HEAD + "kind: Volume\nmetadata: {name: a}\nspec: {x: &a [1], y: [*a, *a]}\n",
        r"bad\.yaml:4:\d+: .*(alias|anchor)",
    ),
    "deep": ("[" * 30_000, r"bad\.yaml:1:\d+: .*64"),
    "binary": ("\x00\x01\x02\xff", r"bad\.yaml:1:4: is not UTF-8"),
    "later work": (
        HEAD + "kind: Container\nmetadata: {name: a}\nspec:\n  image: x:1\n  network: {mode: none}\n"
        "  mounts: [{path: /x, image: other}]\n",
        r"bad\.yaml:7:23: spec\.mounts\[0\]\.image: .*not supported yet",
    ),
    "ports without a bridge": (
        HEAD + "kind: Container\nmetadata: {name: a}\nspec:\n  image: 'x:1'\n"
        "  network: {mode: host, ports: [{host: 1, container: 1}]}\n",
        r"bad\.yaml:6:25: spec\.network\.ports: is only for a bridge; .* mode: bridge instead of host",
    ),
    "unknown kind": (HEAD + "kind: Contianer\nmetadata: {name: a}\nspec: {}\n", r"bad\.yaml:2:7: kind: .*Container"),
    "bad name": (HEAD + "kind: Volume\nmetadata: {name: ../a}\nspec: {}\n", r"bad\.yaml:3:18: metadata\.name: "),
}
GOOD = HEAD + "kind: Volume\nmetadata: {name: good}\nspec: {}\n"


@pytest.fixture
def bare(tmp_path: Path) -> Node:
    """A node on which nothing ever runs: it needs neither root nor a clean-up."""
    return Node(leftovers.Place(tmp_path / "node"))


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_manifest_is_refused_with_its_place_and_nothing_is_applied(
    bare: Node, tmp_path: Path, case: str
) -> None:
    text, expected = CASES[case]
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "bad.yaml").write_bytes(text.encode("latin-1") if case == "binary" else text.encode())
    (folder / "good.yaml").write_text(GOOD)
    done = bare.cli("apply", "-f", folder)
    assert done.returncode == 1
    assert re.search(expected, done.stderr), done.stderr
    assert "nothing was changed" in done.stderr
    assert "Traceback" not in done.stderr
    assert not bare.root.exists()


def test_all_faults_of_all_files_are_told_at_once(bare: Node, tmp_path: Path) -> None:
    wrong = "kind: Volume\nmetadata: {name: A_b}\nspec: {retain: 7, sise: 1}\n"
    (tmp_path / "a.yaml").write_text(HEAD + wrong)
    (tmp_path / "b.yml").write_text(HEAD + "kind: Image\nmetadata: {name: x}\nspec: {}\n")
    done = bare.cli("apply", "-f", tmp_path / "a.yaml", "-f", tmp_path / "b.yml")
    assert done.returncode == 1
    places = re.findall(r"^\S*/([ab]\.ya?ml:\d+:\d+): ", done.stderr, re.MULTILINE)
    assert places == ["a.yaml:3:18", "a.yaml:4:16", "a.yaml:4:19", "b.yml:4:1"], done.stderr
    assert "error: invalid: 4 faults in 2 files; nothing was changed" in done.stderr
    assert bare.cli("diff", "-f", tmp_path / "a.yaml").returncode == 2


@pytest.mark.parametrize("name", ["nothing-there", "empty"])
def test_a_path_that_is_not_there_and_a_folder_without_manifests_are_errors(
    bare: Node, tmp_path: Path, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    done = bare.cli("apply", "-f", tmp_path / name)
    assert done.returncode == 1
    assert name in done.stderr
    assert not bare.root.exists()


def test_standard_input_is_named_as_such(bare: Node) -> None:
    done = bare.cli("apply", "-f", "-", stdin=HEAD + "kind: Volume\nmetadata: {name: a}\nspec: {x: 1}\n")
    assert done.returncode == 1
    assert "<stdin>:4:8: spec.x: unknown field" in done.stderr


def test_a_secret_in_a_wrong_manifest_is_not_printed(bare: Node) -> None:
    text = HEAD + "kind: Secret\nmetadata: {name: a}\nspec: {data: {k: 'hunter2!'}, stringData: {n: [hunter2]}}\n"
    done = bare.cli("apply", "-f", "-", stdin=text)
    assert done.returncode == 1
    assert "hunter2" not in done.stdout + done.stderr
