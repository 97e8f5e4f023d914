"""What a task under conmon cannot do: the rows of known escapes, with the real runtimes and the default spec."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import pty
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import AgentError, Invalid, NotFound
from core.runtime import spec
from core.runtime.ports import ExecSpec, TaskPhase
from tests.conformance.shim_contract import eventually, running, said
from tests.conformance.shim_ground import OciGround, make_root, skip_unless_possible
from tests.runtimes import RUNTIMES

pytestmark = pytest.mark.root

_CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
_CALLS = """
import ctypes, json, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(*numbers):
    ctypes.set_errno(0)
    return ctypes.get_errno() if libc.syscall(*map(ctypes.c_long, numbers)) < 0 else 0
calls = {
    "keyctl": (250, 0, -3, 0), "add_key": (248, 0, 0, 0, 0, 0), "bpf": (321, 0, 0, 0), "unshare": (272, 0x10000000),
    "mount": (165, 0, 0, 0, 0, 0), "umount2": (166, 0, 0), "setns": (308, 0, 0), "io_uring_setup": (425, 1, 0),
    "userfaultfd": (323, 0), "perf_event_open": (298, 0, 0, 0, 0, 0), "init_module": (175, 0, 0, 0),
    "kexec_load": (246, 0, 0, 0, 0), "reboot": (169, 0, 0, 0, 0), "open_by_handle_at": (304, 0, 0, 0),
    "clone_user": (56, 0x10000000 | 17, 0, 0, 0, 0), "clone3": (435, 0, 0), "af_alg": (41, 38, 5, 0),
    "af_vsock": (41, 40, 1, 0), "personality_no_random": (135, 0x40000),
    "personality_linux32": (135, 8), "af_unix": (41, 1, 1, 0), "getpid": (39,), "af_netlink": (41, 16, 3, 0),
}
print(json.dumps({name: call(*numbers) for name, numbers in calls.items()}))
"""
_ALLOWED = {"personality_linux32", "af_unix", "getpid", "af_netlink"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_unless_possible()
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture(params=RUNTIMES)
def ground(tmp_path: Path, root: Path, request: pytest.FixtureRequest) -> Iterator[OciGround]:
    before = _CORE_PATTERN.read_text()
    ground = OciGround(tmp_path, root, request.param)
    yield ground
    ground.end()
    assert _CORE_PATTERN.read_text() == before


def test_a_task_gets_no_descriptor_but_its_three(ground: OciGround) -> None:
    assert said(ground, "sh", "-c", "ls /proc/1/fd; true").split() == ["0", "1", "2"]


def test_nothing_is_inheritable_and_the_set_is_the_default_one(ground: OciGround) -> None:
    text = said(ground, "grep", "-E", "Cap|NoNew|Seccomp:", "/proc/1/status")
    status = dict(line.split(":\t") for line in text.splitlines())
    assert int(status["CapInh"], 16) == 0
    assert int(status["CapAmb"], 16) == 0
    assert bin(int(status["CapBnd"], 16)).count("1") == 14
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_the_runtime_cannot_be_overwritten_through_its_own_exe(ground: OciGround, root: Path) -> None:
    def fingerprint() -> str:
        return hashlib.sha256(Path(shutil.which(Path(ground.tools.runtime).name) or "").read_bytes()).hexdigest()

    before = fingerprint()
    (root / "evil").write_text("#!/proc/self/exe\n")
    (root / "evil").chmod(0o755)
    script = "while :; do for p in /proc/[0-9]*; do echo x 2>/dev/null > $p/exe; done; done"
    shim = running(ground, "sh", "-c", script)
    for _ in range(5):
        shim.exec("one", ExecSpec(["/evil"]))
    (root / "evil").unlink()
    assert fingerprint() == before


def test_links_in_the_image_do_not_lead_mounts_out(ground: OciGround, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "leads-out").symlink_to(outside)
    (tmp_path / "volume").mkdir()
    mount = spec.Mount("/leads-out/here", source=str(tmp_path / "volume"))
    with contextlib.suppress(AgentError):  # crun makes no folder behind a link that leads to nothing
        said(ground, "true", mounts=[mount])
    assert list(outside.iterdir()) == []
    (root / "leads-out").unlink()


@pytest.mark.parametrize("target", ["/proc/self/fd", "/proc/self/fd/8", "/sys/fs/cgroup"])
def test_a_working_folder_in_the_kernels_files_is_refused(ground: OciGround, target: str) -> None:
    with pytest.raises(Invalid):
        ground.task("true", cwd=target)


def test_a_dev_null_that_is_a_link_to_core_pattern_writes_nothing_there(ground: OciGround, root: Path) -> None:
    shutil.rmtree(root / "dev", ignore_errors=True)
    (root / "dev").mkdir()
    (root / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    text = said(ground, "sh", "-c", "echo x > /dev/null; echo y > /proc/sys/kernel/core_pattern; ls -l /dev/null")
    assert "Read-only file system" in text
    assert "crw-rw-rw-" in text
    shutil.rmtree(root / "dev")


def test_masked_and_read_only_paths_hold(ground: OciGround) -> None:
    script = "wc -c < /proc/keys; wc -c < /proc/timer_list; echo b > /proc/sys/kernel/domainname; mkdir /sys/x"
    text = said(ground, "sh", "-c", script)
    assert text.splitlines()[:2] == ["0", "0"]
    assert text.count("Read-only file system") == 2


def test_a_fork_bomb_is_held(ground: OciGround) -> None:
    shim = running(ground, "sh", "-c", "f() { f | f & }; f; sleep 1000", pids=20)
    most = 0

    def held() -> bool:
        nonlocal most
        with contextlib.suppress(NotFound):  # the bomb has gone off: its shell could not fork, and ended
            most = max(most, shim.stats("one").pids)
        return most > 15 or shim.state("one").phase is TaskPhase.STOPPED

    eventually(held)
    assert most <= 20
    shim.delete("one")


def test_a_group_outside_the_instance_is_refused(ground: OciGround) -> None:
    for path in ("/", "/elsewhere/x", f"{ground.group}/../x", f"{ground.group}", f"{ground.group}x/y", "relative"):
        task = ground.task("true")
        bad = replace(task, spec={**task.spec, "linux": {**task.spec["linux"], "cgroupsPath": path}})
        with pytest.raises(Invalid):
            ground.shim.prepare(bad)


def test_the_default_profile_refuses_what_tasks_do_not_need(ground: OciGround, root: Path) -> None:
    if not Path("/usr/bin/python3").exists() or platform.machine() != "x86_64":
        pytest.skip("needs /usr/bin/python3 and x86-64")
    for name in ("lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    mount = spec.Mount("/usr", source="/usr", read_only=True)
    text = said(ground, "/usr/bin/python3", "-c", _CALLS, mounts=[mount])
    for name in ("lib", "lib64"):
        (root / name).unlink()
    seen = json.loads(text)
    assert {name for name, errno in seen.items() if errno == 0} == _ALLOWED
    assert seen.pop("clone3") == 38
    assert {errno for name, errno in seen.items() if name not in _ALLOWED} == {1}


def test_exec_gives_a_terminal_to_who_brings_one(ground: OciGround) -> None:
    shim = running(ground)
    ours, theirs = pty.openpty()
    wanted = ExecSpec(["sh", "-c", "test -t 0 && stty size && exit 5"], tty=True)
    with shim.exec_command("one", wanted) as argv:  # type: ignore[attr-defined]  # the OCI driver's own
        code = subprocess.run(argv, stdin=theirs, stdout=theirs, stderr=theirs, timeout=20).returncode
    os.close(theirs)
    os.close(ours)
    assert code == 5


def test_exec_reads_stdin(ground: OciGround) -> None:
    running(ground)
    with ground.shim.exec_command("one", ExecSpec(["cat"], stdin=True)) as argv:
        assert subprocess.run(argv, input=b"through", capture_output=True, timeout=20).stdout == b"through"


_GROUPS = 'test "$(id -u):$(id -g) $(id -G)" = "$0"'


@pytest.mark.parametrize(("user", "ids"), [("1000", "1000:0 0"), ("1000:1001", "1000:1001 1001"), ("", "7:8 8 9")])
def test_exec_as_another_user_has_none_of_the_containers_groups(ground: OciGround, user: str, ids: str) -> None:
    shim = running(ground, user=spec.User(7, 8, (9,)))
    assert shim.exec("one", ExecSpec(["sh", "-c", _GROUPS, ids], user=user)) == 0


def test_nothing_of_an_exec_stays_in_the_bundle(ground: OciGround) -> None:
    shim = running(ground)
    bundle = ground.state / "bundles" / "one"
    before = sorted(bundle.iterdir())
    shim.exec("one", ExecSpec(["true"], env=["SECRET=1"]))
    assert sorted(bundle.iterdir()) == before


def test_a_very_low_memory_limit_is_an_error_that_says_so(ground: OciGround) -> None:
    ground.shim.prepare(ground.task("true", memory=1 << 16))
    with pytest.raises(AgentError):
        ground.shim.create("one")


def test_a_web_server_runs_under_the_default_profile(ground: OciGround, root: Path, tmp_path: Path) -> None:
    if not Path("/usr/sbin/nginx").exists():
        pytest.skip("nginx is not installed")
    for name in ("lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (tmp_path / "nginx.conf").write_text(
        "daemon off; error_log stderr; pid /tmp/pid; user www www; events {}\n"
        "http { access_log off; server { listen 127.0.0.1:8089; location / { return 200 served; } } }\n"
    )
    mounts = [
        spec.Mount("/usr", source="/usr", read_only=True),
        spec.Mount("/nginx.conf", source=str(tmp_path / "nginx.conf"), read_only=True),
        *(spec.Mount(path, spec.MountKind.TMPFS) for path in ("/var/lib/nginx", "/var/log/nginx")),
    ]
    shim = running(ground, "/usr/sbin/nginx", "-c", "/nginx.conf", mounts=mounts)
    fetch = ExecSpec(["sh", "-c", "test $(wget -qO- http://127.0.0.1:8089/) = served"])
    eventually(lambda: shim.exec("one", fetch) == 0)
    shim.delete("one")
    for name in ("lib", "lib64"):
        (root / name).unlink()
