"""`checkpoint` and `restart --from`, under gVisor, whose checkpoints need nothing of the node."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.workloads import Stage, eventually, stage
from tests.registry import Registry

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("runsc") is None, reason="not installed: runsc"),
]

RUNTIMES: Final = {"runtimes": {"still": {"path": shutil.which("runsc") or "", "options": {"network": "none"}}}}
COUNTING: Final = """
exec 7>>/etc/held
n=0
while :; do n=$((n+1)); echo $n; echo $n >&7; echo $n >/etc/new; mv /etc/new /etc/last; sleep 0.05; done
"""
"""Counts in a variable of its own, into its output, into an open file and one that is made anew, both in its root."""


@pytest.fixture(scope="module")
def st(registry: Registry) -> Iterator[Stage]:
    """One node for the module, with an agent."""
    with stage(registry, config=RUNTIMES) as made:
        yield made


def counting(st: Stage, name: str, **spec: Any) -> dict[str, Any]:
    """A container that counts."""
    return st.container(name, COUNTING, **{"runtime": "still", **spec})


def numbers(st: Stage, name: str, *options: str) -> list[int]:
    """What it has said."""
    return [int(word) for word in st.node.cli("logs", name, *options).stdout.split()]


def taken(st: Stage, name: str, **spec: Any) -> Path:
    """The folder of a checkpoint of a container that counted, and was ended by it."""
    st.must_apply(counting(st, name, **spec))
    eventually(lambda: len(numbers(st, name)) > 3, "it counts")
    folder = st.files / f"checkpoint-{name}"
    done = st.node.cli("checkpoint", name, folder, "--stop", "--reason", "to be moved", "--timeout", "30s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"container/{name}: Stopped" in done.stdout
    return folder


def again(st: Stage, name: str, folder: Path) -> tuple[int, str]:
    """`restart --from`, whatever comes of it: the exit code, and what was said."""
    done = st.node.cli("restart", name, "--from", folder, "--timeout", "30s")
    return done.returncode, done.stdout + done.stderr


def test_a_container_goes_on_where_its_checkpoint_was_taken(st: Stage) -> None:
    goes_on(st)


def test_it_does_so_where_no_agent_is(registry: Registry) -> None:
    with stage(registry, agent=False, config=RUNTIMES) as alone:
        goes_on(alone)


def goes_on(st: Stage) -> None:
    """It counts on where it was, in memory and in its files."""
    folder = taken(st, "moved")
    last = numbers(st, "moved")[-1]
    assert st.status("container/moved")["state"] == "Stopped"
    code, said = again(st, "moved", folder)
    assert code == 0, said
    assert "container/moved: Running" in said
    eventually(lambda: len(numbers(st, "moved")) > 3, "it counts on")
    assert numbers(st, "moved")[:3] == [last + 1, last + 2, last + 3]
    held = [int(word) for word in st.exec("moved", "cat /etc/held").split()]
    assert held == list(range(1, len(held) + 1))
    assert int(st.exec("moved", "cat /etc/last")) > last
    st.delete("container/moved")


def test_a_checkpoint_is_its_owners_alone_and_says_what_it_is_of(st: Stage) -> None:
    folder = taken(st, "private")
    found = [folder, *folder.rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in found if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in found if path.is_file()} == {0o600}
    about = json.loads((folder / "about.json").read_text())
    assert (about["format"], about["container"]) == (1, "private")
    assert about["image"] == st.status("container/private")["image"]["digest"]
    assert about["runtime"]["driver"] == "oci"
    assert set(about["state"]) == {path.name for path in (folder / "state").iterdir()}
    st.delete("container/private")


def change_command(st: Stage, folder: Path) -> str:
    st.must_apply(st.container("spoilt", "sleep 1000", runtime="still"))
    return "another command"


def change_image(st: Stage, folder: Path) -> str:
    return edited(folder, lambda about: about.update(image="sha256:" + "0" * 64)) or "of image sha256:000000000000"


def cut_state_off(st: Stage, folder: Path) -> str:
    (path,) = (folder / "state").iterdir()
    os.truncate(path, path.stat().st_size // 2)
    return "bytes, not"


def link_the_folder(st: Stage, folder: Path) -> str:
    folder.rename(st.files / "real")
    folder.symlink_to(st.files / "real")
    return "is a link"


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> str:
    about = json.loads((folder / "about.json").read_text())
    change(about)
    (folder / "about.json").write_text(json.dumps(about))
    return ""


SPOILERS: Final = (change_image, cut_state_off, link_the_folder, change_command)
"""The rest is in the tests of the folder itself, and of what differs."""


def test_a_checkpoint_that_is_not_right_is_refused_in_words_and_nothing_is_changed(st: Stage) -> None:
    whole = taken(st, "spoilt")
    assert st.node.cli("start", "spoilt", "--timeout", "30s").returncode == 0
    for spoil in SPOILERS:
        folder = st.files / spoil.__name__
        shutil.copytree(whole, folder)
        wanted = spoil(st, folder)
        before = st.pid("spoilt")
        code, said = again(st, "spoilt", folder)
        assert (code, wanted in said) == (1, True), (spoil.__name__, said)
        assert st.pid("spoilt") == before
        assert list((st.node.root / "checkpoints").glob("*")) == []
    st.delete("container/spoilt")


def test_what_the_runtime_cannot_restore_is_told_and_the_container_starts_afresh(st: Stage) -> None:
    folder = taken(st, "afresh")
    (path,) = (folder / "state").iterdir()
    os.truncate(path, path.stat().st_size // 2)
    piece = {"size": path.stat().st_size, "digest": f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"}
    edited(folder, lambda about: about["state"].update({path.name: piece}))
    code, said = again(st, "afresh", folder)
    assert code == 1
    assert "does not go on from the checkpoint" in said
    assert "container/afresh: Running" in said
    eventually(lambda: len(numbers(st, "afresh")) > 2, "it counts anew")
    assert numbers(st, "afresh")[0] == 1
    assert "RestoreFailed" in st.node.cli("events", "container/afresh").stdout
    assert list((st.node.root / "checkpoints").glob("*")) == []
    st.delete("container/afresh")


def test_a_root_that_cannot_be_laid_leaves_what_runs_alone(st: Stage) -> None:
    folder = taken(st, "rootless")
    assert st.node.cli("start", "rootless", "--timeout", "30s").returncode == 0
    before = st.pid("rootless")
    data = b"no tar at all" * 100
    (folder / "layer.tar").write_bytes(data)
    piece = {"size": len(data), "digest": f"sha256:{hashlib.sha256(data).hexdigest()}"}
    edited(folder, lambda about: about.update(layer=piece))
    code, said = again(st, "rootless", folder)
    assert (code, "not a tar" in said or "cut short" in said) == (1, True), said
    assert st.pid("rootless") == before
    assert "restart" not in st.there("container/rootless").local
    st.delete("container/rootless")


def test_what_cannot_be_written_down_says_why_and_goes_on(st: Stage) -> None:
    st.must_apply(st.container("hosted", "sleep 1000", runtime="gvisor"), counting(st, "onlystop"))
    cases = [
        ("hosted", ("--stop",), "not supported when using hostinet"),
        ("onlystop", (), "add --stop"),
        ("nobody", ("--stop",), "there is no container/nobody"),
    ]
    for name, options, wanted in cases:
        done = st.node.cli("checkpoint", name, st.files / "never", *options)
        assert (done.returncode, wanted in done.stderr) == (1, True), done.stderr
        assert not (st.files / "never").exists()
    for name in ("hosted", "onlystop"):
        assert st.status(f"container/{name}")["state"] == "Running"
        assert "stop" not in st.there(f"container/{name}").local
    taken_already = st.node.cli("checkpoint", "onlystop", st.files, "--stop")
    assert (taken_already.returncode, "is there already" in taken_already.stderr) == (1, True)
    assert st.node.cli("stop", "onlystop", "--timeout", "30s").returncode == 0
    done = st.node.cli("checkpoint", "onlystop", st.files / "never", "--stop")
    assert (done.returncode, "does not run" in done.stderr) == (1, True)
    assert list(st.files.glob(".staging*")) == []
    st.delete("container/hosted", "container/onlystop")


def test_runc_without_a_criu_that_works_says_so(st: Stage) -> None:
    st.must_apply(st.container("plain", "sleep 1000"))
    done = st.node.cli("checkpoint", "plain", st.files / "plain", "--stop")
    if done.returncode == 0:
        pytest.skip("CRIU works here")
    assert "criu" in done.stderr
    assert st.status("container/plain")["state"] == "Running"
    st.delete("container/plain")


def test_a_container_that_ended_by_its_checkpoint_can_be_started_afresh(st: Stage) -> None:
    taken(st, "ended")
    last = numbers(st, "ended")[-1]
    assert st.node.cli("start", "ended", "--timeout", "30s").returncode == 0
    eventually(lambda: numbers(st, "ended")[:1] == [1], "it counts anew")
    assert numbers(st, "ended", "--previous")[-1] == last
    st.delete("container/ended")


def test_a_checkpoint_serves_more_than_once_and_the_one_after_a_crash_is_a_fresh_start(st: Stage) -> None:
    folder = taken(st, "twice", restart={"policy": "Always"})
    last = numbers(st, "twice")[-1]
    for _ in range(2):
        code, said = again(st, "twice", folder)
        assert code == 0, said
        eventually(lambda: numbers(st, "twice")[:1] == [last + 1], "it counts on")
    st.node.cli("exec", "twice", "--", "kill", "-9", "1")
    eventually(lambda: st.status("container/twice").get("restarts") == 1, "it is started again")
    eventually(lambda: numbers(st, "twice")[:1] == [1], "it counts anew")
    st.delete("container/twice")


@pytest.mark.parametrize("seconds", [0.05, 0.4])
def test_an_agent_that_is_killed_while_it_restores_is_followed_by_one_that_has_it_run(
    st: Stage, seconds: float
) -> None:
    name = f"killed-{int(seconds * 100)}"
    folder = taken(st, name)
    last = numbers(st, name)[-1]
    done = st.node.cli("restart", name, "--from", folder, "--no-wait")
    assert done.returncode == 0, done.stderr
    (agent,) = [one for one in st.node.running if one.poll() is None]
    with contextlib.suppress(subprocess.TimeoutExpired):
        agent.wait(seconds)
    agent.kill()
    agent.wait()
    st.node.spawn("agent")
    key = f"container/{name}"
    eventually(lambda: st.status(key)["state"] == "Running", "it runs")
    eventually(lambda: numbers(st, name), "it counts")
    assert numbers(st, name)[0] in (1, last + 1)
    told = "RestoreFailed" in st.node.cli("events", key).stdout
    assert told == (numbers(st, name)[0] == 1)
    st.delete(key)
