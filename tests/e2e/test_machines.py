"""Containers in virtual machines: how fast, with what of the node in them, over a mapped port, and without an agent."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.shim_vm_ground import why_not
from tests.e2e import test_workloads_life as life
from tests.e2e.test_network import PAGE, page
from tests.e2e.workloads import Stage, document, eventually, stage
from tests.figures import Figure
from tests.registry import Registry, free_port

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]

BOOT: float = 30.0
"""Seconds in which a machine is up on the busiest of nodes."""


@pytest.fixture(scope="module")
def st(registry: Registry) -> Iterator[Stage]:
    """One node for the module, whose containers run in machines unless they say otherwise."""
    with stage(registry, "vm") as made:
        yield made


test_exec_passes_stdin_code_environment_user_and_folder = life.test_exec_passes_stdin_code_environment_user_and_folder
test_exec_gives_a_terminal_on_wish = life.test_exec_gives_a_terminal_on_wish


def box(name: str, *ports: dict[str, Any], **spec: Any) -> dict[str, Any]:
    network = {"ports": list(ports)} if ports else {"mode": "none"}
    return document("Sandbox", name, {"runtime": "vm", "network": network, **spec})


def held(path: Path) -> bytes:
    """What a sparse file really holds."""
    with open(path, "rb") as file:
        pieces, at = [], 0
        while True:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing more
                return b"".join(pieces)
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            pieces.append(os.pread(file.fileno(), at - start, start))


def test_the_first_line_of_a_container_comes_in_seconds(st: Stage, figure: Figure) -> None:
    st.must_apply(st.container("warm", "true", restart={"policy": "Never"}))  # the image is held from here on
    begun = time.monotonic()
    st.submit(st.container("first", "echo up; sleep 1000"))
    logs = st.node.root / "logs/first"
    eventually(lambda: any(b" up" in log.read_bytes() for log in logs.glob("*.log")), "its first line", seconds=BOOT)
    took = time.monotonic() - begun
    figure("from apply to the first line in a machine", took, "s")
    st.delete("container/warm", "container/first")


def test_volumes_secrets_files_and_memory_of_its_own(st: Stage, tmp_path: Path) -> None:
    (tmp_path / "bound").mkdir()
    (tmp_path / "bound/here").write_text("from the node\n")
    mounts = [
        {"path": "/data", "volume": "kept"},
        {"path": "/run/login", "secret": "login"},
        {"path": "/bound", "bind": {"source": str(tmp_path / "bound")}, "readOnly": True},
    ]
    script = "cat /run/login/word /bound/here; echo written >/data/file; touch /bound/x 2>/dev/null || echo read-only"
    said = st.said(
        "mounted",
        script,
        document("Volume", "kept", {"retain": False}),
        document("Secret", "login", {"stringData": {"word": "hidden\n"}}),
        mounts=mounts,
    )
    assert said.split("\n") == ["hidden", "from the node", "read-only", ""]
    assert (st.node.root / "volumes/kept/file").read_text() == "written\n"
    (layer,) = st.node.root.rglob("layers/mounted-*.img")
    assert b"hidden" not in held(layer)
    st.delete("container/mounted", "volume/kept", "secret/login")


def test_two_containers_of_a_machine_talk_over_localhost_and_the_host_over_a_mapped_port(st: Stage) -> None:
    port = free_port()
    st.must_apply(
        box("shop", {"host": port, "container": 80, "hostIP": "127.0.0.1"}, vm={"cpus": 1, "memory": "192Mi"}),
        st.container("web", PAGE, sandbox="shop"),
        st.container("beside", "sleep 1000", sandbox="shop"),
    )
    eventually(lambda: page(f"127.0.0.1:{port}") == "shop", "the page from the host")
    assert st.exec("beside", "wget -qO- http://127.0.0.1/").strip() == "shop"
    assert page(st.status("sandbox/shop")["ip"]) == "shop"
    assert st.pid("web") == st.pid("beside")  # the machine
    st.delete("container/web", "container/beside", "sandbox/shop")


def test_a_container_outlives_the_agent_and_its_exit_is_known_afterwards(st: Stage) -> None:
    ticking = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done"
    st.must_apply(
        box("pair"),
        st.container("stays", "sleep 1000", sandbox="pair"),
        st.container("ends", ticking, sandbox="pair", restart={"policy": "Never"}),
    )
    machine = st.pid("stays")
    (agent,) = [one for one in st.node.running if one.poll() is None]
    agent.kill()
    agent.wait()
    assert st.exec("ends", "kill -TERM 1; echo told") == "told\n"
    st.node.spawn("agent")
    assert st.exited("ends")["exitCode"] == 7
    assert st.node.cli("logs", "--tail", "1", "ends").stdout == "bye\n"
    assert st.pid("stays") == machine
    assert st.exec("stays", "echo there") == "there\n"
    st.delete("container/stays", "container/ends", "sandbox/pair")
