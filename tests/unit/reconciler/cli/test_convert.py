"""`convert`: manifests on stdout, the report on stderr, nothing printed that cannot be applied."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from reconciler.sources.loading import load
from reconciler.sources.substitution import Variables
from tests.unit.reconciler.cli.conftest import Cli

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n    - {name: web, image: 'nginx:1'}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "in.yaml"
    path.write_text(POD)
    return path


def test_manifests_are_printed_and_every_key_is_told(cli: Cli, file: Path, tmp_path: Path) -> None:
    done = cli("convert", "--from", "pod", file)
    (tmp_path / "out.yaml").write_text(done.out)
    loaded = load([str(tmp_path / "out.yaml")], Variables("node"))
    assert (done.code, loaded.faults) == (0, ())
    assert [str(one.key) for one in loaded.manifests] == ["sandbox/web", "container/web"]
    assert "5 keys: 3 moved, 2 translated" in done.err


def test_a_report_in_json_lists_each_key_with_its_place(cli: Cli, file: Path) -> None:
    done = cli("convert", "--from", "pod", file, "--report", "json")
    entries = json.loads(done.err)["entries"]
    assert {"key": "spec.containers[0].image", "line": 6, "outcome": "moved"}.items() <= entries[-1].items()


@pytest.mark.parametrize(("more", "code"), [("", 0), ("  hostPID: true\n", 1)])
def test_strict_is_for_what_is_dropped(cli: Cli, file: Path, more: str, code: int) -> None:
    file.write_text(POD + more)
    done = cli("convert", "--from", "pod", file, "--strict")
    assert (done.code, done.out.startswith("apiVersion")) == (code, True)
    assert ("--strict" in done.err) == bool(code)


def test_stdin_is_read(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(POD.encode())))
    assert "kind: Container" in cli("convert", "--from", "pod", "-").out


def test_what_cannot_be_applied_is_not_printed_and_told_with_its_line(cli: Cli, file: Path) -> None:
    file.write_text(POD.replace("nginx:1", "Not An Image"))
    done = cli("convert", "--from", "pod", file)
    assert (done.code, done.out) == (1, "")
    assert f"{file}:6: container/web spec.image: is not an image reference" in done.err


def test_a_variable_of_a_compose_file_is_read_beside_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# no\nTAG='2'\n")
    (tmp_path / "compose.yaml").write_text("services: {web: {image: 'nginx:$TAG'}}")
    assert "image: nginx:2" in cli("convert", "--from", "compose", tmp_path / "compose.yaml").out


@pytest.mark.parametrize(
    "words", [("--from", "pod", "none.yaml"), ("--from", "pod", "."), ("--from", "compose", "/dev/null")]
)
def test_what_is_no_file_is_an_error(cli: Cli, words: tuple[str, ...]) -> None:
    done = cli("convert", *words)
    assert (done.code, done.out) == (1, "")


def test_every_fault_of_the_file_is_told_with_its_place(cli: Cli, file: Path) -> None:
    file.write_text("kind: Pod\nkind: Pod\na: !x 1\nb: *none\n")
    said = cli("convert", "--from", "pod", file).err
    assert [f"{file}:{line}:" in said for line in (2, 3, 4)] == [True] * 3


def test_secrets_are_not_shown_on_a_terminal(cli: Cli, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(f"{POD}---\nkind: Secret\nmetadata: {{name: s}}\nstringData: {{key: hunter2}}\n")
    assert "hunter2" in cli("convert", "--from", "pod", file).out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    done = cli("convert", "--from", "pod", file)
    assert ("hunter2" in done.out + done.err, "key: '***'" in done.out) == (False, True)


def test_what_is_converted_has_to_be_said(cli: Cli, file: Path) -> None:
    assert cli("convert", file).code == 2
