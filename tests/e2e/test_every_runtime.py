"""One set of manifests under every runtime, only `runtime:` differs, and its twin of WASM modules: one suite for all.

The processes of a runtime share one sandbox without a network, so that a virtual machine boots once. That nothing is
left when all is deleted is looked for when a runtime's node ends.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.capabilities import EVERY, LACKS, needs
from tests.conformance.shim_vm_ground import why_not
from tests.conformance.shim_wasm_ground import program
from tests.e2e.test_wasm import ECHO, READ, SLEEPER, artifact, module, opening
from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry, free_port

pytestmark = pytest.mark.root

DEVICE: Final = "/dev/loop-control"
NEVER: Final = {"restart": {"policy": "Never"}}
PROGRAMS: Final = {"gvisor": "runsc", "runc-v2": "containerd-shim-runc-v2"}
SCRIPTS: Final = {
    "sleeper": "echo up; exec sleep 1000",
    "env": "echo PLAIN=$PLAIN HIDDEN=$HIDDEN",
    "files": "touch /data/made && cat /run/secrets/key",
    "crashes": "exit 3",
    "code": "exit 5",
}
MODULES: Final[dict[str, Callable[[], bytes]]] = {
    "sleeper": lambda: SLEEPER,
    "env": lambda: program(ECHO, pages=2),
    "files": lambda: opening(("made", 3, 1), ("key", 4, 0), then=READ),
    "crashes": lambda: program("(call $exit (i32.const 3))"),
    "code": lambda: program("(call $exit (i32.const 5))"),
}


@dataclass(slots=True)
class Every:
    """A node, and the runtime that its containers are to have."""

    st: Stage
    runtime: str

    def does(self, name: str, what: str, **spec: Any) -> dict[str, Any]:
        """A container that does one of the things above, as a process or as a module."""
        if self.runtime == "wasm":
            folder = self.st.files / f"artifact-{name}"
            shutil.rmtree(folder, ignore_errors=True)
            return module(name, artifact(self.st, name, MODULES[what]()), **spec)
        return self.runs(name, SCRIPTS[what], **spec)

    def runs(self, name: str, script: str, **spec: Any) -> dict[str, Any]:
        """A container with a script."""
        return self.st.container(name, script, sandbox="shared", **spec)

    def log(self, name: str) -> str:
        """What it has said."""
        return self.st.node.cli("logs", name).stdout


@pytest.fixture(scope="module", params=EVERY)
def on(registry: Registry, request: pytest.FixtureRequest) -> Iterator[Every]:
    """One node for each runtime."""
    runtime: str = request.param
    if (wanted := PROGRAMS.get(runtime)) and shutil.which(wanted) is None:
        pytest.skip(f"{wanted} is not installed")
    if runtime == "vm" and (why := why_not()):
        pytest.skip(why)
    with stage(registry) as made:
        made.node.place.folder.chmod(0o711)  # users of a sandbox's own come through
        if runtime != "wasm":
            box = {"network": {"mode": "none"}, "runtime": runtime}
            made.must_apply(document("Sandbox", "shared", box), options=("--timeout", "60s"))
        yield Every(made, runtime)


def test_the_environment_and_what_a_secret_holds_arrive_and_are_logged(on: Every) -> None:
    env = [
        {"name": "PLAIN", "value": "seen"},
        {"name": "HIDDEN", "valueFrom": {"secret": {"name": "word", "key": "key"}}},
    ]
    secret = document("Secret", "word", {"stringData": {"key": "hush"}})
    on.st.must_apply(secret, on.does("env", "env", env=env, **NEVER))
    assert on.st.exited("env")["exitCode"] == 0
    said = on.log("env")
    assert "PLAIN=seen" in said
    assert "HIDDEN=hush" in said
    on.st.delete("container/env", "secret/word")


def test_a_volume_takes_a_file_and_a_secret_is_read(on: Every) -> None:
    mounts = [{"path": "/data", "volume": "kept"}, {"path": "/run/secrets", "secret": "held"}]
    on.st.must_apply(
        document("Volume", "kept", {"retain": False}),
        document("Secret", "held", {"stringData": {"key": "from a secret\n"}}),
        on.does("files", "files", mounts=mounts, **NEVER),
    )
    assert on.st.exited("files")["exitCode"] == 0
    assert "from a secret\n" in on.log("files")
    assert (on.st.node.root / "volumes/kept/made").exists()
    on.st.delete("container/files", "secret/held", "volume/kept")
    assert not (on.st.node.root / "volumes/kept").exists()


def test_its_exit_code_is_told_and_it_is_gone_when_deleted(on: Every) -> None:
    on.st.must_apply(on.does("code", "code", **NEVER))
    assert on.st.exited("code")["exitCode"] == 5
    bundle = on.st.node.state / "bundles" / on.st.status("container/code")["snapshot"]
    on.st.delete("container/code")
    assert on.st.get("container/code") is None
    eventually(lambda: not bundle.exists(), "its bundle is gone")
    assert not (on.st.node.root / "logs/code").exists()


def test_exec_passes_stdin_and_code(on: Every) -> None:
    needs(on.runtime, "exec")
    on.st.must_apply(on.does("execs", "sleeper"))
    assert on.st.node.cli("exec", "-i", "execs", "--", "cat", stdin="through\n").stdout == "through\n"
    assert on.st.node.cli("exec", "execs", "--", "sh", "-c", "exit 42").returncode == 42
    on.st.delete("container/execs")


def test_a_probe_decides_when_it_is_ready(on: Every) -> None:
    needs(on.runtime, "probe")
    asks = {"readiness": {"exec": ["test", "-e", "/tmp/go"], "every": "200ms", "timeout": "5s"}}
    on.st.submit(on.does("probed", "sleeper", probes=asks))
    eventually(lambda: on.st.condition("container/probed", "Ready").get("reason") == "NotReady", "it is not ready")
    on.st.exec("probed", "touch /tmp/go")
    eventually(lambda: on.st.condition("container/probed", "Ready").get("status") == "True", "it is ready")
    on.st.delete("container/probed")


def test_what_crashes_is_started_ever_more_slowly(on: Every) -> None:
    on.st.submit(on.does("crashes", "crashes"))
    told = lambda: on.st.condition("container/crashes", "Reconciling").get("reason") == "BackOff"  # noqa: E731
    eventually(lambda: on.st.status("container/crashes").get("restarts", 0) >= 2 and told(), "a back-off")
    status = on.st.status("container/crashes")
    assert (status["state"], status["exitCode"]) == ("Waiting", 3)
    assert status["nextRetryAt"]
    on.st.delete("container/crashes")


def test_who_takes_more_memory_than_it_was_given_is_killed_and_that_is_told(on: Every) -> None:
    needs(on.runtime, "oom")
    hungry = "tail /dev/zero"
    on.st.must_apply(on.runs("hungry", hungry, resources={"memory": "16Mi"}, **NEVER))
    status = on.st.exited("hungry")
    assert (status["exitCode"], status["lastExit"]["reason"]) == (137, "OOMKilled")
    on.st.delete("container/hungry")


def test_who_ignores_the_signal_is_killed_when_the_grace_is_over(on: Every) -> None:
    needs(on.runtime, "grace")
    script = "trap 'echo ignored' TERM; echo up; while :; do sleep 0.1; done"
    on.st.must_apply(on.runs("deaf", script, stop={"grace": "1s"}))
    eventually(lambda: "up" in on.log("deaf"), "its trap is set")
    with next((on.st.node.root / "logs/deaf").iterdir()).open() as log:
        began = time.monotonic()
        on.st.delete("container/deaf")
        assert time.monotonic() - began >= 1.0
        assert "ignored" in log.read()


def test_containers_of_one_sandbox_talk_over_localhost(on: Every) -> None:
    needs(on.runtime, "localhost")
    serving = "echo hello >/tmp/index.html; exec httpd -f -p 127.0.0.1:8080 -h /tmp"
    on.st.must_apply(on.runs("serves", serving), on.does("asks", "sleeper"))
    # By hand: under gVisor busybox' wget gives up at the first read of a socket that has nothing yet (EAGAIN).
    ask = ("exec", "asks", "--", "sh", "-c", r"printf 'GET / HTTP/1.0\r\n\r\n' | nc 127.0.0.1 8080")
    eventually(lambda: on.st.node.cli(*ask).stdout.endswith("\nhello\n"), "it answers")
    on.st.delete("container/serves", "container/asks")


@pytest.mark.skipif(not Path("/usr/lib/cni/bridge").exists(), reason="containernetworking-plugins is not installed")
def test_a_port_of_the_node_leads_to_the_container(on: Every) -> None:
    needs(on.runtime, "ports")
    port = free_port()
    mapped = {"host": port, "container": 80, "hostIP": "127.0.0.1"}
    box = document("Sandbox", "shop", {"runtime": on.runtime, "network": {"ports": [mapped]}})
    page = "mkdir -p /tmp/www; echo hello >/tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"
    on.st.must_apply(box, on.st.container("web", page, sandbox="shop"), options=("--timeout", "60s"))
    curl = ["curl", "--silent", "--max-time", "2", f"http://127.0.0.1:{port}/"]
    ask = partial(subprocess.run, curl, capture_output=True, check=False)
    eventually(lambda: ask().stdout == b"hello\n", "the page from the node")
    on.st.delete("container/web", "sandbox/shop")
    assert ask().returncode != 0


def test_hooks_run_after_the_start_and_before_the_end(on: Every) -> None:
    mounts = [{"path": "/data", "volume": "hooked"}]
    hooks = {role: {"exec": ["touch", f"/data/{role}"]} for role in ("postStart", "preStop")}
    spec = {"hooks": hooks, "mounts": mounts}
    if "hooks" in LACKS[on.runtime]:
        assert on.st.apply(on.does("hooked", "sleeper", hooks=hooks)).returncode == 1
        return
    on.st.must_apply(document("Volume", "hooked", {"retain": True}), on.does("hooked", "sleeper", **spec))
    folder = on.st.node.root / "volumes/hooked"
    assert (folder / "postStart").exists()
    on.st.delete("container/hooked")
    assert (folder / "preStop").exists()
    assert on.st.node.cli("delete", "volume/hooked", "--purge").returncode == 0


def test_files_are_copied_out_and_in_or_that_is_refused(on: Every) -> None:
    there, here = on.st.files / f"out-{on.runtime}", on.st.files / "in"
    here.write_text("brought\n")
    mounts = [{"path": "/data", "volume": "copied"}]
    on.st.must_apply(document("Volume", "copied", {"retain": False}), on.does("copied", "sleeper", mounts=mounts))
    (on.st.node.root / "volumes/copied/kept").write_text("kept\n")
    for what, place, text in (("cp", "/etc/passwd", ":0:0:"), ("cp from a mount", "/data/kept", "kept\n")):
        done = on.st.node.cli("cp", f"copied:{place}", there)
        assert (done.returncode == 0) is (what not in LACKS[on.runtime]), (what, done)
        assert done.returncode or text in there.read_text()
        there.unlink(missing_ok=True)
    done = on.st.node.cli("cp", here, "copied:/in")
    assert (done.returncode == 0) is ("cp" not in LACKS[on.runtime]), done
    if done.returncode == 0:
        assert on.st.exec("copied", "cat /in") == "brought\n"
    on.st.delete("container/copied", "volume/copied")


def test_folders_streams_and_what_a_container_left_are_copied_and_no_link_leads_out(on: Every) -> None:
    needs(on.runtime, "cp")
    needs(on.runtime, "cp from a mount")  # nor is /tmp, or a fifo, seen without
    script = "mkdir -p /d/e; echo left >/d/e/f; chown 12:34 /d/e/f; chmod 640 /d/e/f; mkfifo /d/p; ln -s /etc /d/way"
    on.st.must_apply(on.runs("leaves", script, **NEVER), on.does("takes", "sleeper"))
    on.st.exited("leaves")
    top = on.st.files / f"copies-{on.runtime}"
    top.mkdir()
    done = on.st.node.cli("cp", "leaves:/d", top / "got")
    assert (done.returncode, "1 device, socket or fifo" in done.stderr) == (0, True), done
    seen = (top / "got/e/f").stat()
    assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o7777) == (12, 34, 0o640)
    assert (top / "got/way").readlink() == Path("/etc")
    assert (top / "got/e/f").read_text() == "left\n"
    command = partial(on.st.node.arguments, "cp")
    packed = subprocess.run(command("leaves:/d", "-"), capture_output=True, check=True, timeout=60).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert sorted(tar.getnames()) == ["d", "d/e", "d/e/f", "d/way"]
    subprocess.run(command("-", "takes:/tmp"), input=packed, check=True, timeout=60)
    assert on.st.exec("takes", "cat /tmp/d/e/f; stat -c %u:%g:%a /tmp/d/e/f") == "left\n12:34:640\n"
    refused = subprocess.run(command("-", "takes:/tmp"), input=tar_through("d/way/x"), check=False, timeout=60)
    assert (refused.returncode, on.st.exec("takes", "ls /etc/x || echo none")) == (1, "none\n")
    (top / "secret").write_text("ours")
    on.st.exec("takes", f"ln -s {top} /out")
    for words in (("takes:/out/secret", top / "stolen"), (top / "secret", "takes:/out/made")):
        assert on.st.node.cli("cp", *words).returncode == 1
    assert sorted(one.name for one in top.iterdir()) == ["got", "secret"]
    on.st.must_apply(on.runs("frozen", "exec sleep 1000", security={"readOnlyRootfs": True}))
    (top / "secret").write_bytes(bytes(1 << 20))
    done = on.st.node.cli("cp", top / "secret", "frozen:/etc/")
    assert (done.returncode, "ead-only" in done.stderr) == (1, True), done
    on.st.delete("container/leaves", "container/takes", "container/frozen")


def tar_through(name: str) -> bytes:
    """A tar stream of one file of that name."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    return out.getvalue()


def test_a_process_has_no_more_capabilities_calls_and_places_to_write_than_it_was_given(on: Every) -> None:
    needs(on.runtime, "confinement")
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}
    (on.st.files / "no-mkdir.json").write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    security = {"capabilities": {"drop": ["ALL"]}, "seccomp": "./no-mkdir.json", "readOnlyRootfs": True}
    script = (
        "grep CapEff /proc/self/status; cd /dev/shm; mkdir x || echo no mkdir; touch y && touch /z || echo no touch"
    )
    on.st.must_apply(on.runs("narrow", script, security=security, **NEVER))
    on.st.exited("narrow")
    assert on.log("narrow").split("\n")[:1] == ["CapEff:\t0000000000000000"]
    assert "no mkdir\n" in on.log("narrow")
    assert "no touch\n" in on.log("narrow")
    on.st.delete("container/narrow")


BOXES: Final[Mapping[str, Mapping[str, Any]]] = {
    "host network": {"network": {"mode": "host"}},
    "own users": {"userNamespace": {"mode": "auto"}},
    "shared processes": {"shareProcessNamespace": True},
}
"""Sandboxes that not every runtime can make."""


def boxed(on: Every, what: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A sandbox of that kind, and a container in it."""
    name = what.replace(" ", "-")
    box = document("Sandbox", name, {"runtime": on.runtime, "network": {"mode": "none"}, **BOXES[what]})
    return box, on.st.container(name, "exec sleep 1000", sandbox=name)


def test_a_sandbox_is_what_it_was_asked_to_be_or_refused(on: Every) -> None:
    lacking = [what for what in BOXES if what in LACKS[on.runtime]]
    for what in lacking:
        done = on.st.apply(*boxed(on, what))
        assert done.returncode == 1, done
    made = {what: what.replace(" ", "-") for what in BOXES if what not in lacking}
    if made:
        on.st.must_apply(*(one for what in made for one in boxed(on, what)))
    if name := made.get("host network"):
        assert os.stat(f"/proc/{on.st.pid(name)}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino
    if name := made.get("own users"):
        assert int(Path(f"/proc/{on.st.pid(name)}/uid_map").read_text().split()[1]) > 0
    if name := made.get("shared processes"):
        assert "catatonit" in on.st.exec(name, "cat /proc/1/comm")
    on.st.node.cli(
        "delete", *(f"{kind}/{what.replace(' ', '-')}" for what in BOXES for kind in ("container", "sandbox"))
    )


@pytest.mark.skipif(not Path(DEVICE).exists(), reason=f"this node has no {DEVICE}")
def test_a_device_of_the_node_can_be_opened_or_is_refused(on: Every) -> None:
    done = on.st.apply(on.does("opens", "sleeper", security={"devices": [DEVICE]}))
    assert done.returncode == int("devices" in LACKS[on.runtime]), done
    if done.returncode == 0:
        on.st.exec("opens", f": <{DEVICE}")
    on.st.node.cli("delete", "container/opens")


def test_the_agent_is_killed_and_the_next_one_finds_the_workload_untouched(on: Every) -> None:
    on.st.must_apply(on.does("stays", "sleeper"))
    eventually(lambda: on.log("stays") == "up\n", "it is up")
    pid, began = on.st.pid("stays"), on.st.status("container/stays")["startedAt"]
    (agent,) = [one for one in on.st.node.running if one.poll() is None]
    agent.kill()
    agent.wait()
    on.st.node.spawn("agent")
    on.st.must_apply(on.does("after", "code", **NEVER))
    assert on.st.exited("after")["exitCode"] == 5
    status = on.st.status("container/stays")
    assert (status["pid"], status["startedAt"], status.get("restarts", 0)) == (pid, began, 0)
    assert on.log("stays") == "up\n"
    on.st.delete("container/stays", "container/after")


def test_the_table_speaks_of_every_runtime_and_of_nothing_that_no_test_asks_for() -> None:
    asked = {"exec", "probe", "oom", "grace", "localhost", "ports", "hooks", "cp", "cp from a mount", "confinement"}
    assert set(LACKS) == set(EVERY)
    assert {what for lacking in LACKS.values() for what in lacking} == asked | {*BOXES, "devices"}
