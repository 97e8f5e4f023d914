"""What we are measured against, each with its own stores: Debian's containerd with `ctr`, podman, conmon + runc."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests import leftovers
from tests.bench.ground import Broken, quiet_disk, run, timed

NAMESPACE: Final = "reconciler-bench"
CONFIG: Final = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{folder}/sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
"""
WORKERS: Final = 4
START_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Containerd:
    """A private containerd that runs, with an empty store, and its `ctr`."""

    folder: Path

    def ctr(self, *words: str) -> list[str]:
        """The command line of `ctr WORDS`."""
        return ["ctr", "--address", f"{self.folder}/sock", "--namespace", NAMESPACE, *words]

    def pull(self, ref: str) -> float:
        """Seconds to pull and unpack `ref`, which must not be here yet."""
        return timed(self.ctr("images", "pull", "--plain-http", "--snapshotter", "overlayfs", ref))

    def start_many(self, ref: str, count: int) -> float:
        """Seconds for a loop of `ctr run -d`; each container sleeps, in a network namespace of its own."""
        begin = time.perf_counter()
        for number in range(count):
            run(self.ctr("run", "--detach", "--snapshotter", "overlayfs", ref, f"c{number}", "sleep", "infinity"))
        return time.perf_counter() - begin

    def running(self) -> int:
        """How many containers run."""
        return run(self.ctr("tasks", "ls")).count("RUNNING")

    def remove_all(self) -> None:
        """Kills and removes every container."""
        names = run(self.ctr("containers", "ls", "--quiet")).split()
        for name in names:
            subprocess.run(self.ctr("tasks", "rm", "--force", name), capture_output=True)
        if names:
            run(self.ctr("containers", "rm", *names))


@contextmanager
def containerd(folder: Path) -> Iterator[Containerd]:
    """A containerd in an empty folder; it is up before anything is timed, as it would be on a node."""
    folder.mkdir()
    config = folder / "config.toml"
    config.write_text(CONFIG.format(folder=folder))
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(["containerd", "--config", config], stdout=log, stderr=log)
    peer = Containerd(folder)
    try:
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(peer.ctr("version"), capture_output=True).returncode != 0:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise Broken(f"containerd does not start: {(folder / 'log').read_text()[-1500:]}")
            time.sleep(0.05)
        yield peer
        peer.remove_all()
    finally:
        daemon.terminate()
        daemon.wait()
        remove_cgroups(NAMESPACE)
        remove_store(folder)


def remove_store(folder: Path) -> None:
    """Removes a folder and what is mounted in it."""
    for mount in reversed(list(leftovers.mounts(leftovers.Place(folder)))):
        subprocess.run(["umount", "--lazy", mount.target], check=False, capture_output=True)
    shutil.rmtree(folder)


def remove_cgroups(name: str) -> None:
    """Removes the empty control groups of that name at the top of every hierarchy."""
    for mount in leftovers.all_mounts():
        if mount.kind in ("cgroup", "cgroup2"):
            for place, _, _ in os.walk(Path(mount.target) / name, topdown=False):
                with suppress(OSError):  # a process that was just killed is still in it: the next run takes it away
                    os.rmdir(place)


@contextmanager
def podman_pull(folder: Path, ref: str) -> Iterator[float]:
    """Seconds that podman takes to pull `ref` into an empty store in `folder`, which is removed afterwards."""
    folder.mkdir()
    words = ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "overlay"]
    try:
        quiet_disk()
        yield timed(["podman", *words, "pull", "--quiet", "--tls-verify=false", ref])
    finally:
        remove_store(folder)


class Floor:
    """The least that fifty containers cost: bundles made beforehand, only `conmon` and `runc start` are timed."""

    def __init__(self, folder: Path, layout: Path, count: int) -> None:
        self._folder = folder
        run(["umoci", "unpack", "--image", f"{layout}:latest", folder / "image"])
        self._ids = [f"floor{number}" for number in range(count)]
        for name in ("runc", "exits"):
            (folder / name).mkdir()
        for id in self._ids:
            self._bundle(id)

    def _bundle(self, id: str) -> None:
        bundle = self._folder / id
        bundle.mkdir()
        run(["runc", "spec", "--bundle", bundle])
        spec = json.loads((bundle / "config.json").read_text())
        spec["process"] |= {"args": ["sleep", "infinity"], "terminal": False}
        spec["root"] = {"path": str(self._folder / "image/rootfs"), "readonly": True}
        spec["linux"]["cgroupsPath"] = f"/{NAMESPACE}/{id}"
        (bundle / "config.json").write_text(json.dumps(spec))

    def start_many(self) -> float:
        """Seconds from nothing to all running, four at a time."""
        begin = time.perf_counter()
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(self._start, self._ids))
        return time.perf_counter() - begin

    def _start(self, id: str) -> None:
        bundle = self._folder / id
        ours, theirs = os.pipe()
        os.set_inheritable(theirs, True)
        try:
            self._spawn(self._monitor(id, bundle), {**os.environ, "_OCI_SYNCPIPE": str(theirs)})
        finally:
            os.close(theirs)
        with os.fdopen(ours, "rb") as answers:
            answer = answers.readline()
        if int(json.loads(answer or '{"pid": -1}')["pid"]) <= 0:
            raise Broken(f"conmon: {answer.decode()}")
        self._spawn(["runc", "--root", f"{self._folder}/runc", "start", id], os.environ)

    def _monitor(self, id: str, bundle: Path) -> list[str]:
        return [
            *("conmon", "--cid", id, "--cuuid", id, "--name", id, "--full-attach"),
            *("--bundle", f"{bundle}", "--persist-dir", f"{bundle}", "--exit-dir", f"{self._folder}/exits"),
            *("--container-pidfile", f"{bundle}/pid", "--conmon-pidfile", f"{bundle}/monitor.pid"),
            *("--log-path", f"k8s-file:{bundle}/log", "--runtime", shutil.which("runc") or "runc"),
            *("--runtime-arg", "--root", "--runtime-arg", f"{self._folder}/runc"),
        ]

    @staticmethod
    def _spawn(argv: list[str], env: "os._Environ[str] | dict[str, str]") -> None:
        null = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
        _, status = os.waitpid(os.posix_spawnp(argv[0], argv, env, file_actions=null), 0)
        if status != 0:
            raise Broken(f"{argv[0]} ended with {os.waitstatus_to_exitcode(status)}")

    def running(self) -> int:
        """How many containers run."""
        listed = json.loads(run(["runc", "--root", self._folder / "runc", "list", "--format", "json"])) or []
        return sum(one["status"] == "running" for one in listed)

    def remove_all(self) -> None:
        """Kills and removes every container, and waits for its monitor to end."""
        for id in self._ids:
            subprocess.run(["runc", "--root", self._folder / "runc", "delete", "--force", id], capture_output=True)
        deadline = time.monotonic() + START_SECONDS
        while any((self._folder / id / "monitor.pid").exists() and self._monitored(id) for id in self._ids):
            if time.monotonic() > deadline:
                raise Broken("conmon does not end though its container is gone")
            time.sleep(0.02)
        remove_cgroups(NAMESPACE)

    def _monitored(self, id: str) -> bool:
        pid = (self._folder / id / "monitor.pid").read_text()
        return str(self._folder).encode() in leftovers.read_bytes(f"/proc/{pid}/cmdline")
