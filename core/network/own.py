"""The default network of an instance: one bridge, a subnet that nobody else has, and the rules that lead out of it.

Rules of this file: names and comments carry the instance, so that only our own is ever touched; every step is looked
for before it is done. The rules are of the bridge, not of a sandbox: nothing of them is left behind by a sandbox whose
namespace went before it was detached.
"""

from __future__ import annotations

import ipaddress
import os
import struct
from pathlib import Path
from typing import Final

from core import fsio, process
from core.errors import Failed, from_os_error
from core.network.conflist import NetworkList, default, free_subnet
from core.process import Launcher

NAME: Final = "default"
_ROUTES: Final = Path("/proc/net/route")
_SECONDS: Final = 30.0


class Bridge:
    """The default network; `folder` keeps its subnet and its leases, `instance` is in every name."""

    def __init__(self, folder: Path, launcher: Launcher, instance: str) -> None:
        self._folder = fsio.make_private(folder)
        self._launcher = launcher
        self._comment = f"reconciler-{instance}"
        self.device = f"rc{instance}"
        self.leases = folder / "leases"

    def network(self) -> NetworkList:
        """Its list, with the subnet chosen once and kept. Raises `Unsupported` when none is free."""
        return default(NAME, self.device, self._subnet(), str(self.leases))

    def _subnet(self) -> str:
        kept = self._folder / "subnet"
        try:
            return str(ipaddress.IPv4Network(fsio.read_bounded(kept, 64).decode().strip()))
        except (FileNotFoundError, ValueError):
            chosen = free_subnet(routes(_ROUTES.read_text()))
        try:
            fsio.write_atomic(kept, chosen.encode(), durable=False)
        except OSError as error:
            raise from_os_error(error, "keeping the default network's subnet") from error
        return chosen

    def open(self) -> None:
        """Let its sandboxes out, and answers in; harmless when it is so. Raises `MissingTool`, `Failed`."""
        for table, chain, rule in self._rules():
            if not self._has(table, chain, rule):
                self._iptables(table, "-I", chain, rule)

    def mend(self) -> None:
        """`open`, if its bridge is there. Raises as that."""
        if os.path.exists(f"/sys/class/net/{self.device}"):
            self.open()

    def remove(self) -> None:
        """Take bridge and rules away, when no sandbox is on it; harmless when they are gone."""
        if not os.path.exists(f"/sys/class/net/{self.device}"):
            return
        for table, chain, rule in self._rules():
            while self._has(table, chain, rule):
                self._iptables(table, "-D", chain, rule)
        self._launcher.check([process.find("ip", "iproute2"), "link", "del", self.device], timeout=_SECONDS)

    def _rules(self) -> list[tuple[str, str, list[str]]]:
        subnet, mark = self._subnet(), ["-m", "comment", "--comment", self._comment]
        answers = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED,DNAT"]
        return [
            ("nat", "POSTROUTING", ["-s", subnet, "!", "-o", self.device, *mark, "-j", "MASQUERADE"]),
            # Where the host forwards nothing by itself, as it is with Docker beside us.
            ("filter", "FORWARD", ["-i", self.device, *mark, "-j", "ACCEPT"]),
            ("filter", "FORWARD", ["-o", self.device, *answers, *mark, "-j", "ACCEPT"]),
        ]

    def _has(self, table: str, chain: str, rule: list[str]) -> bool:
        return self._launcher.run(self._command(table, "-C", chain, rule), timeout=_SECONDS).code == 0

    def _iptables(self, table: str, verb: str, chain: str, rule: list[str]) -> None:
        done = self._launcher.run(self._command(table, verb, chain, rule), timeout=_SECONDS)
        if done.code != 0:
            raise Failed(f"iptables: {done.complaint()}", advice="The default network needs iptables and the kernel's.")

    def _command(self, table: str, verb: str, chain: str, rule: list[str]) -> list[str]:
        return [process.find("iptables", "iptables"), "-w", "-t", table, verb, chain, *rule]


def routes(text: str) -> list[str]:
    """The IPv4 destinations in a text such as /proc/net/route has (proc(5)), as `10.0.0.0/8`."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) >= 8:
            address, mask = (ipaddress.IPv4Address(struct.pack("<I", int(words[at], 16))) for at in (1, 7))
            found.append(str(ipaddress.IPv4Network(f"{address}/{mask}", strict=False)))
    return found


def dns_of_host(files: tuple[str, ...] = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")) -> list[str]:
    """The host's name servers that a sandbox of its own network can reach: those on loopback are left out."""
    for file in files:
        try:
            text = fsio.read_bounded(Path(file), 1 << 16).decode("utf-8", "replace")
        except OSError:
            continue
        if servers := [one for line in text.splitlines() if (one := _server(line))]:
            return servers
    return []


def _server(line: str) -> str:
    words = line.split()
    if len(words) < 2 or words[0] != "nameserver":
        return ""
    try:
        address = ipaddress.ip_address(words[1].partition("%")[0])
    except ValueError:
        return ""
    return "" if address.is_loopback else str(address)
