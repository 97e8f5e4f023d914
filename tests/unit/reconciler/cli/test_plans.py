"""Plans, sets, managers and bad input: what changes the store, and what must not."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest

from tests.unit.reconciler.cli.conftest import Cli

VOLUME = "apiVersion: reconciler/v1\nkind: Volume\nmetadata: {{name: {name}, labels: {{tier: {tier}}}}}\n---\n"


def volumes(folder: Path, *names: str, tier: str = "a") -> Path:
    path = folder / "volumes.yaml"
    path.write_text("".join(VOLUME.format(name=name, tier=tier) for name in names))
    return path


def names(cli: Cli) -> list[str]:
    return cli("get", "volumes", "-o", "name").out.split()


def test_every_fault_is_told_with_its_place_and_nothing_is_applied(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("apiVersion: reconciler/v1\nkind: Volume\nmetadata: {name: a}\nspec: {siez: 1}\n")
    (tmp_path / "b.yaml").write_text("apiVersion: reconciler/v1\nkind: Pod\nmetadata: {name: 1}\n")
    done = cli("apply", "-f", tmp_path)
    assert (done.code, done.out) == (1, "")
    *faults, last = done.err.splitlines()
    assert last == f"error: invalid: {len(faults)} faults in 2 files; nothing was changed"
    assert len(faults) == 3
    assert all(re.match(rf"{tmp_path}/[ab]\.yaml:\d+:\d+: ", fault) for fault in faults)
    assert cli("diff", "-f", tmp_path).code == 2
    assert not cli.root.exists()


def test_what_does_not_exist_is_an_error(cli: Cli, tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        assert cli("apply", "-f", path).code == 1
    assert not cli.root.exists()


def test_a_dry_run_says_everything_and_does_nothing(cli: Cli, tmp_path: Path) -> None:
    done = cli("apply", "-f", volumes(tmp_path, "a"), "--dry-run")
    assert (done.code, "create  volume/a" in done.out) == (0, True)
    shape = json.loads(cli("apply", "-f", tmp_path, "--dry-run", "-o", "json").out)
    assert [item["metadata"]["name"] for item in shape["items"]] == ["a"]
    assert not cli.root.exists()


def test_stdin_is_read_and_no_wait_accepts(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(VOLUME.format(name="a", tier="a").encode())))
    done = cli("apply", "-f", "-", "--no-wait")
    assert done.code == 0
    assert "Accepted: 1 object." in done.out
    assert "no agent on this node" in done.out
    assert names(cli) == ["volume/a"]


def test_a_plan_that_is_not_what_would_be_done_is_refused_with_4(cli: Cli, tmp_path: Path) -> None:
    file = volumes(tmp_path, "a")
    plan = re.search(r"Plan ([0-9a-f]{8})", cli("diff", "-f", file).out)
    assert plan is not None
    volumes(tmp_path, "a", "b")
    refused = cli("apply", "-f", file, "--plan", plan[1], "--no-wait")
    assert (refused.code, "error: conflict: plan " in refused.err) == (4, True)
    assert names(cli) == []
    volumes(tmp_path, "a")
    assert cli("apply", "-f", file, "--plan", plan[1], "--no-wait").code == 0
    assert names(cli) == ["volume/a"]


def test_a_set_removes_what_is_no_longer_given_and_nothing_else(cli: Cli, tmp_path: Path) -> None:
    assert cli("apply", "-f", volumes(tmp_path, "other"), "--no-wait").code == 0
    file = volumes(tmp_path, "a", "b")
    assert cli("apply", "-f", file, "--set", "edge", "--no-wait").code == 0
    volumes(tmp_path, "b", "c")
    diff = cli("diff", "-f", file, "--set", "edge", "--prune")
    assert re.findall(r"^(\w+) +(\S+)", diff.out, re.MULTILINE)[:2] == [
        ("create", "volume/c"),
        ("remove", "volume/a"),
    ]
    assert cli("apply", "-f", file, "--set", "edge", "--prune", "--no-wait").code == 0
    going = {
        item["metadata"]["name"]
        for item in json.loads(cli("get", "volumes", "-o", "json").out)["items"]
        if "deletedAt" in item["metadata"]
    }
    assert going == {"a"}
    assert (cli.root / "applied").is_dir()


def test_pruning_needs_a_set(cli: Cli, tmp_path: Path) -> None:
    done = cli("apply", "-f", volumes(tmp_path, "a"), "--prune")
    assert (done.code, "error: invalid: --prune needs --set NAME" in done.err) == (1, True)


def test_another_managers_object_is_refused_unless_taken_over(cli: Cli, tmp_path: Path) -> None:
    file = volumes(tmp_path, "a")
    assert cli("apply", "-f", file, "--set", "edge", "--no-wait").code == 0
    for words, code in ((("apply", "-f", file), 1), (("diff", "-f", file), 2)):
        done = cli(*words)
        assert done.code == code
        assert "error: denied: volume/a belongs to set/edge" in done.err
    assert cli("apply", "-f", file, "--take-over", "--no-wait").code == 0
    assert json.loads(cli("get", "volume", "a", "-o", "json").out)["metadata"]["manager"] == "hand"


def test_deleting_what_is_not_there_deletes_nothing(cli: Cli, tmp_path: Path) -> None:
    assert cli("apply", "-f", volumes(tmp_path, "a"), "--no-wait").code == 0
    done = cli("delete", "volume", "a", "b", "--no-wait")
    assert (done.code, "there is no volume/b: nothing was deleted" in done.err) == (1, True)
    assert "deletedAt" not in cli("get", "volume", "a", "-o", "json").out
    assert cli("delete").code == 2
    assert cli("delete", "--set", "none").code == 0
    done = cli("delete", "volume/a", "--no-wait", "--purge")
    assert done.code == 0
    assert json.loads(cli("get", "volume", "a", "-o", "json").out)["metadata"]["annotations"] == {
        "reconciler/purge": "true"
    }


def test_doctor_never_fails_with_a_traceback(cli: Cli) -> None:
    done = cli("doctor")
    assert done.code in (0, 1)
    assert done.out.splitlines()[-1].startswith("Containers can")
    assert done.err == ""
