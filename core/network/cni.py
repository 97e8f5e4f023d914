"""Attaching sandboxes to networks by CNI plugins (CNI spec 1.0, sections 2 to 4): ADD, CHECK, DEL, with memory.

Rules of this file: what is about to be done is written down before the first plugin runs, with the list it is done
by, so that after a crash DEL undoes exactly that, whatever the configuration says by then. An entry without a result is
half-made: it is undone and made anew, never trusted. DEL is harmless, as often as wanted, also when the namespace is
gone. A plugin's words are bounded and never lead anywhere.

An entry is `<folder>/<id>.json`: {boot, list, ports, netns, result}.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from core import fsio
from core.errors import AgentError, Busy, Failed, Invalid, MissingTool, NotFound, from_os_error
from core.network.conflist import NetworkList, parse
from core.process import Launcher, Result
from core.values import dataclass

INTERFACE: Final = "eth0"
PACKAGE: Final = "containernetworking-plugins"
FOLDERS: Final = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
"""Where plugins lie, in order."""
_SECONDS: Final = 60.0
_OTHER_PORT: Final = "Map another port of the host, or stop who has this one (ss -ltnup says who)."
_ANY: Final = ("", "0.0.0.0", "::")
_TRY_AGAIN: Final = 11
"""Code of an error after which the same call may succeed later (CNI spec, section 5)."""


@dataclass(frozen=True, slots=True)
class PortMapping:
    """`host_ip`:`host` leads to `container` in the sandbox; `host_ip` "": every address of the host."""

    host: int
    container: int
    protocol: str = "tcp"
    host_ip: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plugins take it (CNI conventions, portMappings)."""
        mapping: dict[str, Any] = {"hostPort": self.host, "containerPort": self.container, "protocol": self.protocol}
        return {**mapping, "hostIP": self.host_ip} if self.host_ip else mapping

    def meets(self, other: PortMapping) -> bool:
        """Whether both want the same port of the same address."""
        same = (self.host, self.protocol) == (other.host, other.protocol)
        return same and (self.host_ip in _ANY or other.host_ip in _ANY or self.host_ip == other.host_ip)


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a sandbox has got: addresses with prefix (`10.88.0.5/24`), name servers and the rest of its DNS."""

    network: str
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    dns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The first address, without prefix; "" when there is none."""
        return self.addresses[0].partition("/")[0] if self.addresses else ""


class PortTaken(Busy):
    """The port on the host is somebody else's."""


class Cni:
    """Attaches and detaches. `folder` keeps the entries; `boot` is this boot's id; `prefix` begins every name that the
    plugins hear, so that two instances on a host never meet.
    """

    def __init__(
        self, folder: Path, launcher: Launcher, boot: str, prefix: str, plugins: Sequence[str] = FOLDERS
    ) -> None:
        self._folder = fsio.make_private(folder)
        self._launcher = launcher
        self._boot = boot
        self._prefix = prefix
        self.plugins = tuple(plugins)

    def add(self, id: str, netns: str, network: NetworkList, ports: Sequence[PortMapping] = ()) -> Attachment:
        """Attach the namespace at path `netns`, or adopt what was done: create or adopt, never both.

        Raises `MissingTool`, `PortTaken`, `Invalid` (ports on a network that cannot map them), `Failed` with a plugin's
        own words; then nothing of it is left.
        """
        if ports and not network.capability("portMappings"):
            advice = "Add the portmap plugin to the list, or leave `ports` out."
            raise Invalid(f"network {network.name} maps no ports", advice=advice)
        if (known := self._entry(id)) is not None:
            if known.whole(self._boot, network, ports, netns):
                return attachment(network.name, known.result)
            self.delete(id)
        self._programs(network)
        entry = _Entry(self._boot, network, tuple(ports), netns, {})
        if self._path(id).exists():
            self._chain("DEL", id, entry)  # what it said cannot be read any more; most likely it said this
        self._ports_free(ports)
        self._keep(id, entry)
        try:
            done = self._chain("ADD", id, entry)
        except AgentError:
            self.delete(id)
            raise
        self._keep(id, _Entry(entry.boot, entry.network, entry.ports, netns, done))
        return attachment(network.name, done)

    def check(self, id: str) -> None:
        """Ask the plugins whether all is as they made it; raises `NotFound` (never attached), `Failed` (it is not)."""
        entry = self._entry(id)
        if entry is None or not entry.result or entry.boot != self._boot:
            raise NotFound(f"{id} is attached to no network")
        if not entry.network.disable_check and entry.network.version not in ("0.3.0", "0.3.1"):
            self._chain("CHECK", id, entry)

    def attached(self, id: str) -> Attachment | None:
        """What `add` gave, if its interfaces on the host are there; None: nothing, or not whole. Spawns nothing."""
        entry = self._entry(id)
        if entry is None or not entry.result or entry.boot != self._boot or not entry.stands():
            return None
        return attachment(entry.network.name, entry.result)

    def delete(self, id: str) -> None:
        """Detach, by the list it was attached with; harmless when it was not. Raises `Failed`, `MissingTool`."""
        entry = self._entry(id)
        if entry is not None:
            self._chain("DEL", id, entry)
        self._path(id).unlink(missing_ok=True)

    def ids(self) -> Iterator[str]:
        """What there are entries of: what is in here and belongs to no sandbox is to be deleted."""
        yield from sorted(name[: -len(".json")] for name in os.listdir(self._folder) if name.endswith(".json"))

    def release_unknown(self, leases: Path) -> list[str]:
        """Give back the addresses under `leases` (of `host-local`, ours alone) of which no entry is there any more.

        A lost entry leaves them; nothing else would ever return them. Returns the addresses.
        """
        known = {self._name(id) for id in self.ids()}
        freed = []
        for file in sorted(leases.glob("*/[0-9]*")) if leases.is_dir() else ():
            owner = fsio.read_bounded(file, 4096).decode("utf-8", "replace").split()[:1]
            if owner and owner[0].startswith(f"{self._prefix}-") and owner[0] not in known:
                file.unlink(missing_ok=True)
                freed.append(file.name)
        return freed

    # Entries.

    def _path(self, id: str) -> Path:
        if not id or "/" in id or id.startswith("."):
            raise Invalid(f"{id!r} is no id")
        return self._folder / f"{id}.json"

    def _entry(self, id: str) -> _Entry | None:
        try:
            return _Entry.read(fsio.read_bounded(self._path(id), 1 << 20))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError, AgentError):
            return None  # a torn or scrambled entry: what it stood for is freed by its lease, its ports by the sweep

    def _keep(self, id: str, entry: _Entry) -> None:
        try:
            fsio.write_atomic(self._path(id), json.dumps(entry.to_json()).encode(), durable=False)
        except OSError as error:
            raise from_os_error(error, f"noting the network of {id}") from error

    def _ports_free(self, ports: Sequence[PortMapping]) -> None:
        """Raise `PortTaken` for a port that another sandbox or a program of the host has: plugins do not look."""
        if not ports:
            return
        for other in self.ids():
            entry = self._entry(other)
            for taken in entry.ports if entry is not None and entry.boot == self._boot else ():
                if any(taken.meets(one) for one in ports):
                    raise PortTaken(f"port {taken.host}/{taken.protocol} is mapped to {other}", advice=_OTHER_PORT)
        for one in ports:
            check_port(one)

    # Plugins.

    def _name(self, id: str) -> str:
        return f"{self._prefix}-{id}"

    def _programs(self, network: NetworkList) -> None:
        """Look for every program before the first runs; raises `MissingTool`."""
        for plugin in network.plugins:
            self._program(str(plugin["type"]))
            if isinstance(ipam := plugin.get("ipam"), dict) and isinstance(word := ipam.get("type"), str):
                self._program(word)

    def _program(self, word: str) -> str:
        for folder in self.plugins:
            path = os.path.join(folder, os.path.basename(word))
            if os.access(path, os.X_OK):
                return path
        raise MissingTool(f"the network plugin {word}", PACKAGE)

    def _chain(self, verb: str, id: str, entry: _Entry) -> dict[str, Any]:
        """Run the plugins of an entry, for DEL from the last to the first; returns the last result."""
        before: Mapping[str, Any] = entry.result
        plugins = entry.network.plugins
        for plugin in reversed(plugins) if verb == "DEL" else plugins:
            config = _config(entry, plugin, before)
            result = self._run(verb, id, entry.netns, str(plugin["type"]), config)
            before = result if verb == "ADD" else before
        return dict(before)

    def _run(self, verb: str, id: str, netns: str, word: str, config: Mapping[str, Any]) -> dict[str, Any]:
        there = netns if os.path.exists(netns) else ""
        env = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": self._name(id),
            "CNI_NETNS": there,
            "CNI_IFNAME": INTERFACE,
            "CNI_PATH": ":".join(self.plugins),
        }
        done = self._launcher.run([self._program(word)], stdin=json.dumps(config).encode(), timeout=_SECONDS, env=env)
        if done.code != 0:
            raise _failure(verb, word, done)
        try:
            answer = json.loads(done.stdout) if verb == "ADD" else {}
        except ValueError:
            raise Failed(f"network plugin {word}: its answer to {verb} is not JSON: {done.complaint()}") from None
        if not isinstance(answer, dict):
            raise Failed(f"network plugin {word}: its answer to {verb} is no result")
        return answer


@dataclass(frozen=True, slots=True)
class _Entry:
    boot: str
    network: NetworkList
    ports: tuple[PortMapping, ...]
    netns: str
    result: Mapping[str, Any]
    """The last plugin's answer; empty: it never came."""

    def whole(self, boot: str, network: NetworkList, ports: Sequence[PortMapping], netns: str) -> bool:
        """Whether this boot's plugins did all of this already."""
        same = (self.network.to_json(), self.ports, self.netns) == (network.to_json(), tuple(ports), netns)
        return self.boot == boot and bool(self.result) and same and self.stands()

    def stands(self) -> bool:
        """Whether the host has its ends of what was made: with an end in the sandbox, the one here goes too."""
        made = self.result.get("interfaces", ())
        return all(os.path.lexists(f"/sys/class/net/{one.get('name')}") for one in made if not one.get("sandbox"))

    def to_json(self) -> dict[str, Any]:
        ports = [[one.host, one.container, one.protocol, one.host_ip] for one in self.ports]
        whole = {"boot": self.boot, "list": self.network.to_json(), "ports": ports, "netns": self.netns}
        return {**whole, "result": dict(self.result)}

    @classmethod
    def read(cls, data: bytes) -> _Entry:
        found = json.loads(data)
        network = parse(json.dumps(found["list"]).encode(), "a network entry")
        ports = tuple(PortMapping(*one) for one in found["ports"])
        return cls(str(found["boot"]), network, ports, str(found["netns"]), dict(found["result"]))


def _config(entry: _Entry, plugin: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """What one plugin reads on its stdin (CNI spec, section 3, deriving execution configuration)."""
    config: dict[str, Any] = {**plugin, "name": entry.network.name, "cniVersion": entry.network.version}
    capabilities = config.pop("capabilities", {})
    if before:
        config["prevResult"] = dict(before)
    if entry.ports and capabilities.get("portMappings") is True:
        config["runtimeConfig"] = {"portMappings": [one.to_json() for one in entry.ports]}
    return config


def _failure(verb: str, word: str, done: Result) -> AgentError:
    """A plugin's error in our words: {code, msg, details} on its stdout (CNI spec, section 5)."""
    try:
        said = json.loads(done.stdout)
        message = " ".join(filter(None, (str(said.get("msg", "")), str(said.get("details", "")))))[:500]
        code = said.get("code")
    except (ValueError, AttributeError):
        message, code = done.complaint(), None
    text = f"network plugin {word}: {verb}: {message or f'exit code {done.code}'}"
    if "address already in use" in message or "cannot open hostport" in message:
        return PortTaken(text, advice=_OTHER_PORT)
    return Busy(text) if code == _TRY_AGAIN else Failed(text)


def check_port(port: PortMapping) -> None:
    """Raise `PortTaken` when a program of this host listens where `port` is to be mapped, `Invalid` for no address."""
    address = port.host_ip or "0.0.0.0"
    kind = socket.SOCK_DGRAM if port.protocol == "udp" else socket.SOCK_STREAM
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind | socket.SOCK_CLOEXEC) as probe:
        try:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger hold nothing up
            probe.bind((address, port.host))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(f"port {port.host}/{port.protocol} of this host is taken", advice=_OTHER_PORT) from None
            raise Invalid(f"hostIP {address} is no address of this host: {error.strerror}") from None


def attachment(network: str, result: Mapping[str, Any]) -> Attachment:
    """What a result says (CNI spec, section 5): addresses of the sandbox's own interfaces only."""
    interfaces = result.get("interfaces") or []
    inside = {number for number, one in enumerate(interfaces) if isinstance(one, dict) and one.get("sandbox")}
    addresses, gateways = [], []
    for one in result.get("ips") or []:
        if not isinstance(one, dict) or (interfaces and one.get("interface") not in inside):
            continue
        try:
            addresses.append(str(ipaddress.ip_interface(str(one.get("address", "")))))
        except ValueError:
            raise Failed(f"network {network} gave an address that is none: {one.get('address')!r}") from None
        gateways += [str(one["gateway"])] if one.get("gateway") else []
    dns = result.get("dns")
    return Attachment(network, tuple(addresses), tuple(gateways), dns if isinstance(dns, dict) else {})
