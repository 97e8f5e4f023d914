"""Sandboxes on a bridge by Debian's real CNI plugins, in network namespaces of the test's own."""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.errors import Failed, Invalid, MissingTool, NotFound
from core.network.cni import FOLDERS, Cni, PortMapping, PortTaken
from core.network.conflist import NetworkList, default
from core.network.own import Bridge
from core.process import Launcher
from reconciler.engine.networks import CniNetworks
from tests.registry import free_port

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not Path("/usr/lib/cni/bridge").exists(), reason="containernetworking-plugins is not installed"),
]


def run(*words: str) -> str:
    """The output of a command that must succeed."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@dataclass
class Ground:
    """One instance's network: its own bridge, leases and namespaces."""

    folder: Path
    prefix: str
    subnet: str

    def __post_init__(self) -> None:
        self.bridge = f"rt{self.prefix}"
        self.leases = self.folder / "leases"
        self.network = default("default", self.bridge, self.subnet, str(self.leases))
        self.cni = self.engine()

    def engine(self, boot: str = "this", plugins: tuple[str, ...] = FOLDERS) -> Cni:
        """A driver on this ground, as a new engine would build it."""
        return Cni(self.folder / "entries", Launcher(), boot, self.prefix, plugins)

    def namespace(self, name: str) -> str:
        """A new network namespace."""
        run("ip", "netns", "add", f"{self.prefix}{name}")
        run("ip", "netns", "exec", f"{self.prefix}{name}", "ip", "link", "set", "lo", "up")
        return f"/run/netns/{self.prefix}{name}"

    def leased(self) -> list[str]:
        """The addresses that somebody has."""
        return sorted(file.name for file in self.leases.glob("*/[0-9]*"))

    def veths(self) -> int:
        """How many ports the bridge has; 0 when there is no bridge."""
        found = subprocess.run(["ip", "-j", "link", "show", "master", self.bridge], capture_output=True, text=True)
        return len(json.loads(found.stdout)) if found.returncode == 0 and found.stdout.strip() else 0

    def rules(self) -> list[str]:
        """The rules of the packet filter that speak of this ground."""
        return [line for line in run("iptables-save", "-t", "nat").splitlines() if f"{self.prefix}-" in line]

    def clean(self) -> None:
        """Nothing of it is left."""
        for id in list(self.cni.ids()):
            self.cni.delete(id)
        for name in run("ip", "netns", "list").split():
            if name.startswith(self.prefix):
                run("ip", "netns", "del", name)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True)
        shutil.rmtree(self.folder)


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """A ground with a subnet that no other test has."""
    made = Ground(
        tmp_path / "net", secrets.token_hex(4), f"10.{120 + secrets.randbelow(100)}.{secrets.randbelow(250)}.0/24"
    )
    yield made
    made.clean()


def test_an_attached_sandbox_has_an_address_and_is_reached_by_it(ground: Ground) -> None:
    got = ground.cni.add("web-1", ground.namespace("a"), ground.network)
    assert got.addresses[0].startswith(ground.subnet.rsplit(".", 1)[0])
    assert got.addresses[0].endswith("/24")
    run("ping", "-c1", "-W2", got.address) if shutil.which("ping") else run(
        "ip", "netns", "exec", f"{ground.prefix}a", "ip", "route", "get", got.gateways[0]
    )
    assert ground.cni.attached("web-1") == got
    ground.cni.check("web-1")


def test_attaching_again_adopts_what_is_there(ground: Ground) -> None:
    netns = ground.namespace("a")
    first = ground.cni.add("web-1", netns, ground.network)
    assert ground.engine().add("web-1", netns, ground.network) == first
    assert (ground.veths(), len(ground.leased())) == (1, len(["web-1"]))


def test_a_mapped_port_leads_in_from_the_host(ground: Ground) -> None:
    port = free_port()
    netns = ground.namespace("a")
    got = ground.cni.add("web-1", netns, ground.network, [PortMapping(port, 80, host_ip="127.0.0.1")])
    busybox = ["ip", "netns", "exec", f"{ground.prefix}a", "busybox", "nc", "-l", "-p", "80", "-e", "echo", "hello"]
    with subprocess.Popen(busybox) as server:
        try:
            assert b"hello" in said(("127.0.0.1", port), server)
        finally:
            server.kill()
    assert got.address


def said(address: tuple[str, int], server: subprocess.Popen[bytes]) -> bytes:
    """What a server says, asked until it listens."""
    while True:
        assert server.poll() is None, "the server ended before it was asked"
        try:
            with socket.create_connection(address, timeout=5) as line:
                return line.recv(100)
        except ConnectionRefusedError:
            continue


def test_detaching_leaves_nothing_and_is_harmless_again(ground: Ground) -> None:
    ground.cni.add("web-1", ground.namespace("a"), ground.network, [PortMapping(free_port(), 80)])
    assert ground.rules()
    ground.cni.delete("web-1")
    ground.cni.delete("web-1")
    assert (ground.veths(), ground.leased(), ground.rules(), list(ground.cni.ids())) == (0, [], [], [])


def test_a_namespace_that_is_gone_is_detached_all_the_same(ground: Ground) -> None:
    ground.cni.add("web-1", ground.namespace("a"), ground.network, [PortMapping(free_port(), 80)])
    run("ip", "netns", "del", f"{ground.prefix}a")
    ground.cni.delete("web-1")
    assert (ground.leased(), ground.rules()) == ([], [])


def test_what_was_begun_and_never_answered_is_undone_and_made_anew(ground: Ground) -> None:
    netns = ground.namespace("a")
    ground.cni.add("web-1", netns, ground.network)
    entry = ground.folder / "entries/web-1.json"
    entry.write_text(json.dumps({**json.loads(entry.read_text()), "result": {}}))
    assert ground.cni.attached("web-1") is None
    assert ground.engine().add("web-1", netns, ground.network).address
    assert (ground.veths(), len(ground.leased())) == (1, 1)


def test_another_boot_s_entry_is_not_believed(ground: Ground) -> None:
    ground.cni.add("web-1", ground.namespace("a"), ground.network)
    run("ip", "netns", "del", f"{ground.prefix}a")
    later = ground.engine(boot="the next")
    assert later.attached("web-1") is None
    assert later.add("web-1", ground.namespace("b"), ground.network).address
    assert len(ground.leased()) == 1


def test_other_ports_attach_it_anew(ground: Ground) -> None:
    netns = ground.namespace("a")
    ground.cni.add("web-1", netns, ground.network, [PortMapping(free_port(), 80)])
    other = free_port()
    ground.cni.add("web-1", netns, ground.network, [PortMapping(other, 80)])
    assert any(str(other) in rule for rule in ground.rules())
    assert (ground.veths(), len(ground.leased())) == (1, 1)


def test_a_port_that_another_sandbox_has_is_refused_and_names_it(ground: Ground) -> None:
    port = free_port()
    ground.cni.add("web-1", ground.namespace("a"), ground.network, [PortMapping(port, 80)])
    with pytest.raises(PortTaken, match=f"port {port}/tcp is mapped to web-1"):
        ground.cni.add("db-1", ground.namespace("b"), ground.network, [PortMapping(port, 80, host_ip="127.0.0.1")])
    assert list(ground.cni.ids()) == ["web-1"]


def test_a_port_that_a_program_of_the_host_has_is_refused(ground: Ground) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port}/tcp of this host is taken"):
            ground.cni.add("web-1", ground.namespace("a"), ground.network, [PortMapping(port, 80)])
    assert ground.leased() == []


def test_a_plugin_that_fails_leaves_nothing_and_says_why(ground: Ground) -> None:
    broken = NetworkList("lan", "1.0.0", (*ground.network.plugins[:1], {"type": "tuning", "sysctl": {"no.such": "1"}}))
    with pytest.raises(Failed, match="network plugin tuning: ADD: "):
        ground.cni.add("web-1", ground.namespace("a"), broken)
    assert (ground.veths(), ground.leased(), list(ground.cni.ids())) == (0, [], [])


def test_a_plugin_that_is_not_installed_is_named_with_its_package(ground: Ground) -> None:
    nowhere = ground.engine(plugins=(str(ground.folder),))
    with pytest.raises(MissingTool, match="the network plugin bridge is not on this node") as caught:
        nowhere.add("web-1", ground.namespace("a"), ground.network)
    assert "containernetworking-plugins" in caught.value.hint()


def test_ports_on_a_network_that_maps_none_are_refused(ground: Ground) -> None:
    plain = NetworkList("lan", "1.0.0", ground.network.plugins[:1])
    with pytest.raises(Invalid, match="network lan maps no ports"):
        ground.cni.add("web-1", ground.namespace("a"), plain, [PortMapping(free_port(), 80)])


def test_an_address_whose_entry_was_lost_is_given_back(ground: Ground) -> None:
    kept = ground.cni.add("web-1", ground.namespace("a"), ground.network)
    lost = ground.cni.add("db-1", ground.namespace("b"), ground.network)
    (ground.folder / "entries/db-1.json").unlink()
    assert ground.cni.release_unknown(ground.leases) == [lost.address]
    assert ground.leased() == [kept.address]


def test_a_scrambled_entry_is_made_anew(ground: Ground) -> None:
    netns = ground.namespace("a")
    ground.cni.add("web-1", netns, ground.network)
    (ground.folder / "entries/web-1.json").write_bytes(b"\x00\xff{")
    run("ip", "netns", "exec", f"{ground.prefix}a", "ip", "link", "del", "eth0")
    assert ground.engine().add("web-1", netns, ground.network).address


def test_the_default_network_leads_out_and_is_taken_away_whole(ground: Ground) -> None:
    own = Bridge(ground.folder / "own", Launcher(), ground.prefix)
    assert own.network() == Bridge(ground.folder / "own", Launcher(), ground.prefix).network()
    ground.cni.add("web-1", ground.namespace("a"), own.network())
    own.open()
    own.open()
    rules = [line for line in run("iptables-save").splitlines() if f"reconciler-{ground.prefix}" in line]
    assert len(rules) == len(["out", "from", "to"]), rules
    ground.cni.delete("web-1")
    own.remove()
    own.remove()
    assert f"reconciler-{ground.prefix}" not in run("iptables-save")
    assert not Path(f"/sys/class/net/{own.device}").exists()


def test_what_is_not_as_the_plugins_made_it_is_seen(ground: Ground) -> None:
    ground.cni.add("web-1", ground.namespace("a"), ground.network)
    run("ip", "netns", "exec", f"{ground.prefix}a", "ip", "addr", "flush", "dev", "eth0")
    with pytest.raises(Failed, match="CHECK"):
        ground.cni.check("web-1")
    with pytest.raises(NotFound, match="attached to no network"):
        ground.cni.check("db-1")


def test_a_namespace_whose_interface_was_removed_is_attached_anew(ground: Ground) -> None:
    netns = ground.namespace("a")
    ground.cni.add("web-1", netns, ground.network)
    run("ip", "netns", "exec", f"{ground.prefix}a", "ip", "link", "del", "eth0")
    assert ground.cni.attached("web-1") is None
    got = ground.cni.add("web-1", netns, ground.network)
    assert ground.cni.attached("web-1") == got
    assert (ground.veths(), ground.leased()) == (1, [got.address])


def test_rules_that_somebody_flushed_are_found_and_their_sandboxes_detached(ground: Ground) -> None:
    own = Bridge(ground.folder / "own", Launcher(), ground.prefix)
    networks = CniNetworks(ground.cni, own, ground.folder / "lists", ground.folder)
    for name in ("web-1", "db-1"):
        port = PortMapping(free_port(), 80, "tcp", "")
        ground.cni.add(name, ground.namespace(name[:2]), ground.network, [port])
    assert [*networks.inspect(), *networks.inspect()] == []
    for rule in [line for line in ground.rules() if line.startswith("-A CNI-HOSTPORT-DNAT") and "web-1" in line]:
        run("iptables", "-t", "nat", "-D", *shlex.split(rule)[1:])
    found = [*networks.inspect(), *networks.inspect()]
    assert found == ["web-1"]
    assert (ground.cni.attached("web-1"), ground.cni.attached("db-1") is not None) == (None, True)


def test_a_check_that_is_never_content_detaches_nothing(ground: Ground) -> None:
    networks = CniNetworks(
        ground.cni, Bridge(ground.folder / "own", Launcher(), ground.prefix), ground.folder / "lists", ground.folder
    )
    ground.cni.add("web-1", ground.namespace("a"), ground.network)
    run("ip", "netns", "exec", f"{ground.prefix}a", "ip", "addr", "flush", "dev", "eth0")
    assert [networks.inspect() for _ in range(3)] == [()] * 3
    assert ground.cni.attached("web-1") is not None
