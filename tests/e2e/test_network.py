"""Containers on a bridge: an address of their own, mapped ports, names, and nothing left of it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry, free_port

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not Path("/usr/lib/cni/bridge").exists(), reason="containernetworking-plugins is not installed"),
]

SOON = ("--timeout", "6s")
PAGE = "mkdir -p /tmp/www; echo $(hostname) >/tmp/www/index.html; httpd -f -p 80 -h /tmp/www"


@pytest.fixture(scope="module")
def st(registry: Registry) -> Iterator[Stage]:
    """One node for the module."""
    with stage(registry) as made:
        yield made


def sandbox(name: str, *ports: dict[str, Any], **network: Any) -> dict[str, Any]:
    return document("Sandbox", name, {"runtime": "runc", "network": {"ports": list(ports), **network}})


def page(address: str) -> str:
    """What a web server says; "" while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{address}/", timeout=2) as reply:
            return str(reply.read().decode().strip())
    except OSError:
        return ""


def leases(st: Stage) -> list[str]:
    """The addresses that somebody has."""
    return sorted(file.name for file in (st.node.state / "network/leases").glob("*/[0-9]*"))


def rules(st: Stage) -> list[str]:
    """Rules of the packet filter that carry the instance."""
    saved = subprocess.run(["iptables-save"], check=True, capture_output=True, text=True).stdout
    return [line for line in saved.splitlines() if st.node.instance in line]


def test_a_port_of_the_host_leads_to_a_container_and_neighbours_reach_it_by_address(st: Stage) -> None:
    port = free_port()
    box = sandbox("shop", {"host": port, "container": 80, "hostIP": "127.0.0.1"})
    st.must_apply(box, st.container("web", PAGE, sandbox="shop"), st.container("other", "sleep 1000", network={}))
    eventually(lambda: page(f"127.0.0.1:{port}") == "shop", "the page from the host")
    status = st.status("sandbox/shop")
    assert status["ports"] == [{"host": port, "container": 80, "hostIP": "127.0.0.1"}]
    assert page(status["ip"]) == "shop"
    assert st.exec("other", f"wget -qO- {status['ip']}").strip() == "shop"
    assert f"{status['ip']}\tshop" in st.exec("web", "cat /etc/hosts")
    assert "shop" in st.node.cli("get", "sandboxes").stdout


def test_an_address_outlives_the_agent_and_a_kill_of_it(st: Stage) -> None:
    st.must_apply(sandbox("stays"), st.container("kept", "sleep 1000", sandbox="stays"))
    before, pid = st.status("sandbox/stays")["ip"], st.pid("kept")
    (agent,) = [one for one in st.node.running if one.poll() is None]
    agent.kill()
    agent.wait()
    st.node.spawn("agent")
    eventually(lambda: "the agent" in st.node.cli("status").stdout, "the next agent")
    st.must_apply(sandbox("stays"), st.container("later", "sleep 1000", sandbox="stays"))
    assert (st.status("sandbox/stays")["ip"], st.pid("kept")) == (before, pid)
    assert before in st.exec("later", "ip addr show eth0")


def test_what_was_taken_off_the_network_by_hand_is_attached_again(st: Stage) -> None:
    st.must_apply(sandbox("torn"), st.container("inside", "sleep 1000", sandbox="torn"))
    id = st.status("sandbox/torn")["id"]
    (st.node.state / f"network/entries/{id}.json").unlink()
    for name in leases(st):
        file = next((st.node.state / "network/leases").glob(f"*/{name}"))
        if id in file.read_text():
            file.unlink()
    subprocess.run(["nsenter", f"--net=/proc/{st.pid('inside')}/ns/net", "ip", "link", "del", "eth0"], check=True)
    st.must_apply(sandbox("torn"))
    eventually(lambda: "eth0" in st.exec("inside", "ls /sys/class/net"), "its interface")
    eventually(lambda: st.status("sandbox/torn")["ip"] in leases(st), "its new address in its status")


def test_a_port_that_is_taken_is_told_and_holds_nobody_else_up(st: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        box = sandbox("late", {"host": port, "container": 80})
        done = st.apply(
            box, st.container("waits", PAGE, sandbox="late"), st.container("free", "sleep 9", network={}), options=SOON
        )
        assert done.returncode == 3, done.stdout + done.stderr
        assert f"port {port}/tcp of this host is taken" in done.stderr
        assert st.status("container/free")["state"] == "Running"
    st.must_apply(box)
    eventually(lambda: page(f"127.0.0.1:{port}") == "late", "the page once the port is free")


def test_a_network_that_the_node_lacks_is_told_with_those_that_it_has(st: Stage) -> None:
    done = st.apply(sandbox("lost", network="moon"), options=SOON)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "this node has no network 'moon'; it has: default" in done.stderr
    st.node.cli("delete", "sandbox", "lost")


def test_deleting_all_leaves_no_bridge_no_rule_and_no_address(st: Stage) -> None:
    st.must_apply(sandbox("last"), st.container("end", "sleep 1000", sandbox="last"))
    assert os.path.exists(f"/sys/class/net/rc{st.node.instance}")
    there = json.loads(st.node.cli("get", "containers", "-o", "json").stdout)["items"]
    st.node.cli("delete", "container", *(one["metadata"]["name"] for one in there))
    boxes = json.loads(st.node.cli("get", "sandboxes", "-o", "json").stdout)["items"]
    st.node.cli("delete", "sandbox", *(one["metadata"]["name"] for one in boxes))
    assert (leases(st), rules(st)) == ([], [])
    assert not os.path.exists(f"/sys/class/net/rc{st.node.instance}")
    assert shutil.which("iptables")
