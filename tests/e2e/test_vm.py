"""Containers in virtual machines: the same as under runc, and what comes when a machine is killed or cannot boot."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.proc import ProcessId, boot_id
from tests.conformance.shim_vm_ground import why_not
from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry, free_port

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def st(registry: Registry) -> Iterator[Stage]:
    """One node for the module, whose containers run in machines unless they say otherwise."""
    pc = {"sandboxer": "vm", "options": {"machine": "q35"}}
    with stage(registry, "vm", more={"pc": pc}) as made:
        yield made


def page(port: int, address: str = "127.0.0.1") -> str:
    """What the server at a port says; "" while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{address}:{port}/index.html", timeout=2) as reply:
            return str(reply.read().decode().strip())
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Whether it runs."""
    seen = ProcessId.of(pid, boot_id())
    return seen is not None and seen.alive(boot_id())


def test_the_example_runs_two_containers_in_one_machine(st: Stage) -> None:
    port = free_port()
    folder = st.files / "vm"
    folder.mkdir()
    for file in sorted((TOP / "manifests/vm").glob("*.yaml")):
        text = file.read_text().replace("127.0.0.1:5005/busybox:1", st.image()).replace("8089", str(port))
        (folder / file.name).write_text(text)
    done = st.node.cli("apply", "--timeout", "50s", "-f", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert eventually(lambda: page(port), "the port of the node leads to the machine") == "hello from the guest"
    eventually(lambda: "hello from the guest" in st.node.cli("logs", "asker").stdout, "its neighbour answers")
    assert st.pid("server") == st.pid("asker")
    st.delete("sandbox/machine", "container/server", "container/asker", "volume/pages", "secret/greeting")
    assert page(port) == ""


def test_a_machine_outlives_the_agent_and_the_next_one_goes_on_with_it(st: Stage) -> None:
    st.must_apply(st.container("stays", "echo begun; exec sleep 1000"))
    before = st.pid("stays")
    agent = st.node.running[-1]
    agent.kill()
    agent.wait()
    st.node.spawn("agent")
    eventually(lambda: st.exec("stays", "echo there") == "there\n", "it answers")
    assert st.pid("stays") == before
    assert st.node.cli("logs", "stays").stdout.count("begun") == 1
    copied = st.node.cli("cp", "stays:/etc/passwd", st.files)
    assert copied.returncode == 0, copied.stderr
    assert (st.files / "passwd").read_text().startswith("root:")
    st.delete("container/stays")
    assert not alive(before)


def test_a_machine_that_is_killed_is_made_anew_and_its_neighbour_is_not_touched(st: Stage) -> None:
    st.must_apply(st.container("hit", "sleep 1000"), st.container("beside", "sleep 1000", runtime="runc"))
    first, beside = st.pid("hit"), st.pid("beside")
    os.kill(first, signal.SIGKILL)
    eventually(lambda: st.status("container/hit").get("pid") not in (first, None), "it runs anew", seconds=60)
    assert st.pid("beside") == beside
    assert st.exec("hit", "echo there") == "there\n"
    gc = lambda *options: json.loads(st.node.cli("gc", *options, "-o", "json").stdout)["roots"]  # noqa: E731
    assert gc() == []
    st.delete("container/hit", "container/beside")
    (going,) = gc("--dry-run")
    assert going["bytes"] > 100_000
    assert gc() == [going]
    assert gc() == []
    assert list((st.node.root / "vm/roots").glob("*.erofs")) == []


def test_a_file_and_a_secret_of_nearly_a_mebibyte_are_carried_into_the_machine(st: Stage) -> None:
    data = os.urandom((1 << 20) - 7)
    (st.files / "large").write_bytes(data)
    text = os.urandom(300_000).hex()
    mounts = [{"path": "/large", "file": "large"}, {"path": "/held", "secret": "large"}]
    secret = document("Secret", "large", {"stringData": {"text": text}})
    said = st.said(
        "carries", "sha256sum /large /held/text; rm /large || ls -l /large /held/text", secret, mounts=mounts
    )
    for content in (data, text.encode()):
        assert hashlib.sha256(content).hexdigest() in said
    st.delete("container/carries", "secret/large")


def test_a_machine_that_was_taken_off_its_network_by_hand_is_joined_to_it_again(st: Stage) -> None:
    box = document("Sandbox", "torn", {"runtime": "vm", "network": {"mode": "bridge"}})
    serve = "mkdir /www; echo hello >/www/index.html; exec httpd -f -p 80 -h /www"
    st.must_apply(box, st.container("inside", serve, sandbox="torn"))
    id, pid, before = st.status("sandbox/torn")["id"], st.pid("inside"), st.status("sandbox/torn")["ip"]
    eventually(lambda: page(80, before) == "hello", "its page")
    netns = st.node.state / f"netns/{id}/network"
    (st.node.state / f"network/entries/{id}.json").unlink()
    for lease in (st.node.state / "network/leases").glob(f"*/{before}"):
        lease.unlink()
    subprocess.run(["nsenter", f"--net={netns}", "ip", "link", "del", "eth0"], check=True)
    st.must_apply(box)
    after = eventually(lambda: (ip := st.status("sandbox/torn")["ip"]) != before and ip, "a new address")
    eventually(lambda: page(80, after) == "hello", "its page, under its new address")
    assert after in st.exec("inside", "ip addr show")
    assert st.pid("inside") == pid
    st.delete("container/inside", "sandbox/torn")


def test_a_kernel_that_does_not_boot_is_told_with_its_last_words(st: Stage) -> None:
    kernel = st.files / "kernel"
    kernel.write_bytes(b"no kernel at all" * 4096)
    box = {"runtime": "vm", "network": {"mode": "none"}, "vm": {"kernel": str(kernel)}}
    st.must_apply(st.container("well", "sleep 1000", runtime="runc"))
    well = st.pid("well")
    st.submit(document("Sandbox", "broken", box), st.container("waits", "true", sandbox="broken"))
    told = eventually(lambda: st.condition("sandbox/broken", "Ready").get("message"), "it is told", seconds=60)
    assert "the machine does not boot: QEMU ended with code 1" in told
    tries = st.status("sandbox/broken")["id"].rpartition("-")[2]
    assert int(tries) < 5
    assert st.pid("well") == well
    st.delete("container/waits", "container/well", "sandbox/broken")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other architectures have one board only")
def test_a_machine_of_an_ordinary_pc_lives_as_one_of_microvm(st: Stage) -> None:
    box = document("Sandbox", "pc", {"runtime": "pc", "network": {"mode": "none"}})
    mounts = [{"path": "/data", "volume": "pc"}]
    script = "echo made >/data/file; echo begun; exec sleep 1000"
    volume = document("Volume", "pc", {"retain": False})
    st.must_apply(box, volume, st.container("old", script, sandbox="pc", mounts=mounts), options=("--timeout", "60s"))
    argv = Path(f"/proc/{st.pid('old')}/cmdline").read_text().split("\0")
    assert argv[argv.index("-machine") + 1].startswith("q35,")
    eventually(lambda: st.node.cli("logs", "old").stdout == "begun\n", "its line")
    assert st.exec("old", "ls /sys/bus/pci/drivers | grep virtio; cat /data/file") == "virtio-pci\nmade\n"
    st.delete("container/old", "sandbox/pc", "volume/pc")


def test_vm_for_a_runtime_that_makes_no_machines_is_refused(st: Stage) -> None:
    refused = st.apply(document("Sandbox", "odd", {"runtime": "runc", "vm": {"cpus": 2}}))
    assert refused.returncode != 0
    assert "vm" in refused.stderr
