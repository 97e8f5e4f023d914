"""WASM modules as containers: the same life as a process's, from an artifact or an ordinary image."""

from __future__ import annotations

import json
import os
import signal
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from wasmtime import wat2wasm

from tests.conformance.shim_wasm_ground import FOREVER, program, say
from tests.e2e.workloads import CONFIG, LAYER, MANIFEST, Stage, document, eventually, stage
from tests.e2e.workloads import _keep as keep
from tests.e2e.workloads import _tar as tar
from tests.fakes.images import described
from tests.registry import Registry

pytestmark = pytest.mark.root
EXAMPLE: Final = Path(__file__).resolve().parents[2] / "manifests/wasm"
SLEEPER = program(f"(call $say (i32.const 1024) (i32.const 3)) {FOREVER}", "up\n")


@pytest.fixture(scope="module")
def st(registry: Registry) -> Iterator[Stage]:
    """One node for the module."""
    with stage(registry) as made:
        yield made


def layout(folder: Path, config: tuple[bytes, str], layer: tuple[bytes, str]) -> Path:
    """An OCI layout of one image, tagged latest."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    entries = {"config": keep(blobs, *config), "layers": [keep(blobs, *layer)]}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, **entries}
    entry = keep(blobs, json.dumps(manifest).encode(), MANIFEST)
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def artifact(st: Stage, name: str, module: bytes) -> str:
    """Push a module as an artifact; its reference."""
    config = json.dumps({"architecture": "wasm", "os": "wasip1"}).encode()
    made = layout(
        st.files / f"artifact-{name}", (config, "application/vnd.wasm.config.v0+json"), (module, "application/wasm")
    )
    return st.registry.push(made, f"{name}:latest")


def module(name: str, image: str, **spec: Any) -> dict[str, Any]:
    """A container of a module."""
    return document("Container", name, {"image": image, "runtime": "wasm", **spec})


def pack() -> None:
    """Compile and pack the example anew: greeter.tar out of greeter.wat."""
    made = bytes(wat2wasm((EXAMPLE / "greeter.wat").read_text()))
    config = json.dumps({"architecture": "wasm", "os": "wasip1"}).encode()
    with tempfile.TemporaryDirectory() as work, tarfile.open(EXAMPLE / "greeter.tar", "w") as out:
        folder = layout(Path(work) / "oci", (config, "application/vnd.wasm.config.v0+json"), (made, "application/wasm"))
        index = json.loads((folder / "index.json").read_text())
        index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "1"}
        (folder / "index.json").write_text(json.dumps(index))
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            info = tarfile.TarInfo(str(path.relative_to(folder)))
            info.size = path.stat().st_size
            with open(path, "rb") as source:
                out.addfile(info, source)


def test_the_example_is_made_of_what_stands_beside_it_and_runs(st: Stage) -> None:
    made = bytes(wat2wasm((EXAMPLE / "greeter.wat").read_text()))
    with tarfile.open(EXAMPLE / "greeter.tar") as packed:
        held = [found.read() for one in packed.getmembers() if (found := packed.extractfile(one)) is not None]
    assert made in held, "run: .venv/bin/python -c 'from tests.e2e.test_wasm import pack; pack()'"
    done = st.node.cli("apply", "--timeout", "30s", "-f", EXAMPLE)
    assert done.returncode == 0, done.stdout + done.stderr
    eventually(lambda: st.node.cli("logs", "greeter").stdout == "hello from a module\n", "it greets")
    assert st.status("container/greeter")["state"] == "Running"
    assert st.node.cli("delete", "--timeout", "30s", "-f", EXAMPLE).returncode == 0
    assert st.get("image/greeter") is None


def test_a_module_runs_logs_and_ends_with_its_code(st: Stage) -> None:
    body = "(call $say (i32.const 1024) (i32.const 6)) (call $exit (i32.const 3))"
    image = artifact(st, "hello", program(body, "hello\n"))
    st.must_apply(module("hello", image, restart={"policy": "Never"}))
    assert st.exited("hello")["exitCode"] == 3
    assert st.node.cli("logs", "hello").stdout == "hello\n"
    st.delete("container/hello")
    assert st.get("container/hello") is None


def test_an_ordinary_image_whose_command_is_a_module_runs_too(st: Stage) -> None:
    config = {
        "os": "wasi",
        "architecture": "wasm",
        "config": {"Entrypoint": ["/app/run.wasm"]},
        "rootfs": {"type": "layers"},
    }
    data = tar({"app/": (0, 0o755, b""), "app/run.wasm": (0, 0o644, say("from a layer\n"))})
    config["rootfs"]["diff_ids"] = [described(data, LAYER)["digest"]]  # type: ignore[index]  # a dict, see above
    made = layout(st.files / "plain", (json.dumps(config).encode(), CONFIG), (data, LAYER))
    st.must_apply(module("plain", st.registry.push(made, "plain:latest"), restart={"policy": "Never"}))
    assert st.exited("plain")["exitCode"] == 0
    assert st.node.cli("logs", "plain").stdout == "from a layer\n"
    st.delete("container/plain")


ECHO: Final = """
 (drop (call $args_get (i32.const 4096) (i32.const 8192)))
 (drop (call $environ_get (i32.const 12288) (i32.const 16384)))
 (call $say (i32.const 8192) (i32.const 40)) (call $say (i32.const 16384) (i32.const 200))
"""


def test_arguments_and_environment_arrive(st: Stage) -> None:
    image = artifact(st, "echo", program(ECHO, pages=2))
    secret = document("Secret", "word", {"stringData": {"key": "hush"}})
    env = [
        {"name": "PLAIN", "value": "seen"},
        {"name": "HIDDEN", "valueFrom": {"secret": {"name": "word", "key": "key"}}},
    ]
    st.must_apply(secret, module("echo", image, args=["one", "two"], env=env, restart={"policy": "Never"}))
    st.exited("echo")
    said = st.node.cli("logs", "echo").stdout.replace("\0", " ")
    assert "/main.wasm one two" in said
    assert "PLAIN=seen" in said
    assert "HIDDEN=hush" in said
    st.delete("container/echo", "secret/word")


def opens(path: str, folder: int, flags: int = 0, then: str = "") -> str:
    """Open `path` in the folder of that number, write its error code as a digit pair, do `then` with $i, the file."""
    rights = 64 if flags else 2
    return f"""
     (local.set $i (call $open (i32.const {folder}) (i32.const 1) (i32.const {path[0]}) (i32.const {path[1]})
      (i32.const {flags}) (i64.const {rights}) (i64.const {rights}) (i32.const 0) (i32.const 512)))
     (i32.store8 (i32.const 600) (i32.add (i32.const 48) (i32.div_u (local.get $i) (i32.const 10))))
     (i32.store8 (i32.const 601) (i32.add (i32.const 48) (i32.rem_u (local.get $i) (i32.const 10))))
     (i32.store8 (i32.const 602) (i32.const 10))
     (call $say (i32.const 600) (i32.const 3)) {then}"""


def opening(*wanted: tuple[str, int, int], then: str = "") -> bytes:
    """A module that opens each (path, folder's number, flags: 1 creates) and says with which error."""
    data, body = "", ""
    for path, folder, flags in wanted:
        body += opens((1024 + len(data), len(path)), folder, flags, then)  # type: ignore[arg-type]  # a place
        data += path
    return program(body, data)


READ: Final = """
 (i32.store (i32.const 640) (i32.const 4096)) (i32.store (i32.const 644) (i32.const 100))
 (drop (call $fd_read (i32.load (i32.const 512)) (i32.const 640) (i32.const 1) (i32.const 656)))
 (call $say (i32.const 4096) (i32.load (i32.const 656)))"""


def test_volume_secret_and_file_are_folders_of_the_module_and_read_only_means_it(st: Stage) -> None:
    (st.files / "settings.conf").write_text("from a file\n")
    wanted = (("made", 3, 1), ("key", 4, 0), ("key2", 4, 1), ("settings.conf", 5, 0))
    image = artifact(st, "mounts", opening(*wanted, then=READ))
    mounts = [
        {"path": "/data", "volume": "kept"},
        {"path": "/run/secrets", "secret": "held"},
        {"path": "/etc/settings.conf", "file": "settings.conf"},
    ]
    st.must_apply(
        document("Volume", "kept", {}),
        document("Secret", "held", {"stringData": {"key": "from a secret\n"}}),
        module("mounts", image, mounts=mounts, restart={"policy": "Never"}),
    )
    assert st.exited("mounts")["exitCode"] == 0
    said = st.node.cli("logs", "mounts").stdout.splitlines()
    assert said == ["00", "00", "from a secret", REFUSED, "00", "from a file"], said
    assert (st.node.root / "volumes/kept/made").exists()
    st.delete("container/mounts", "secret/held")
    assert st.node.cli("delete", "volume", "kept", "--purge").returncode == 0


REFUSED: Final = "63"
"""ERRNO_PERM, what a folder that is not to be written answers."""


def test_a_killed_module_is_started_again_with_back_off_and_a_crash_too(st: Stage) -> None:
    st.must_apply(module("again", artifact(st, "sleeper", SLEEPER)))
    pid = st.pid("again")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: st.status("container/again").get("pid") not in (None, pid), "it runs again")
    st.must_apply(module("trap", artifact(st, "trap", program("unreachable"))), options=("--no-wait",))
    eventually(lambda: "BackOff" in json.dumps(st.status("container/trap").get("conditions", "")), "back-off")
    status = st.status("container/trap")
    assert status["exitCode"] == 134, status
    assert "unreachable" in st.node.cli("logs", "trap").stdout + st.node.cli("logs", "trap").stderr
    st.delete("container/again", "container/trap")


def test_an_endless_loop_ends_long_before_the_grace_is_over(st: Stage) -> None:
    st.must_apply(module("loop", artifact(st, "loop", program("(loop (br 0))")), stop={"grace": "10s"}))
    pid = st.pid("loop")
    began = time.monotonic()
    assert st.node.cli("stop", "loop").returncode == 0
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "it has ended")
    assert time.monotonic() - began < 8.0  # with the command itself; not the grace
    st.delete("container/loop")


def test_the_agent_may_be_killed_and_the_module_goes_on(st: Stage) -> None:
    image = artifact(st, "stays", SLEEPER)
    short = artifact(st, "short", program("(call $sleep (i64.const 1500)) (call $exit (i32.const 5))"))
    st.must_apply(module("stays", image), module("short", short, restart={"policy": "Never"}))
    pid, other = st.pid("stays"), st.pid("short")
    st.node.stop()
    eventually(lambda: not Path(f"/proc/{other}").exists(), "the short one ends while nobody looks")
    st.node.spawn("agent")
    assert st.exited("short")["exitCode"] == 5
    assert st.pid("stays") == pid
    assert st.status("container/stays").get("restarts", 0) == 0
    st.delete("container/stays", "container/short")


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ({"network": {"mode": "host"}}, "spec.network.mode"),
        ({"tty": True}, "spec.tty"),
        ({"security": {"devices": ["/dev/null"]}}, "spec.security.devices"),
        ({"probes": {"liveness": {"exec": ["true"]}}}, "spec.probes.liveness"),
        ({"mounts": [{"path": "/tmp", "tmpfs": {}}]}, "spec.mounts[0].tmpfs"),
    ],
)
def test_what_a_module_has_not_is_refused_at_its_place(st: Stage, spec: Mapping[str, Any], place: str) -> None:
    done = st.apply(module("never", "127.0.0.1:1/x:1", **spec))
    assert done.returncode == 1
    assert place in done.stderr
    assert st.get("container/never") is None


def test_files_of_the_host_are_not_reached_through_a_module(st: Stage) -> None:
    st.must_apply(module("closed", artifact(st, "closed", SLEEPER)))
    st.pid("closed")
    done = st.node.cli("cp", "closed:/etc/hostname", st.files / "stolen")
    assert done.returncode != 0
    assert not (st.files / "stolen").exists()
    done = st.node.cli("exec", "closed", "--", "sh", "-c", "true")
    assert done.returncode != 0
    assert "in a module" in done.stderr
    st.delete("container/closed")
