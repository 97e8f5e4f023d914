"""The spec of a Sandbox, and the network that a Container may ask of its private one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.model.kinds.base import Listed, Resources, Spec
from reconciler.model.kinds.quantities import parse_bytes, read_by
from reconciler.model.kinds.texts import AbsolutePath, Address, DnsOption, Hostname, Name, matching
from reconciler.model.modules import PROCESSES, VM, WASM
from reconciler.model.problems import Path, Problem, Wrong, mapping_at, mappings_in

_SYSCTL: Final = re.compile(r"kernel\.(?:shm[a-z_]+|msg[a-z]+|sem)|fs\.mqueue\.[a-z_]+|net\.[-a-zA-Z0-9_./]{1,200}")
_no_sysctl: Final = matching(
    _SYSCTL,
    "is not a sysctl that belongs to a sandbox",
    "only kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and net.* are its own; the rest is the node's",
)

SysctlName = Annotated[str, *read_by(_no_sysctl, {"pattern": f"^(?:{_SYSCTL.pattern})$"})]


LEAST_MEMORY: Final = 96 << 20
"""Bytes with which a guest's kernel and what unpacks beside it still start."""


def parse_machine_memory(value: object) -> int:
    """As `parse_bytes`, and at least what a guest needs for itself."""
    if (amount := parse_bytes(value)) < LEAST_MEMORY:
        raise Wrong("is less than a guest needs for itself", f"write {LEAST_MEMORY >> 20}Mi or more")
    return amount


MachineMemory = Annotated[int, *read_by(parse_machine_memory, {"examples": ["256Mi", "2Gi"]})]
Port = Annotated[int, Field(ge=1, le=65535)]


class PortSpec(Spec):
    """`host` (of the addresses `host_ip`; None: all) leads to `container` in the sandbox."""

    host: Port
    container: Port
    protocol: Literal["tcp", "udp"] = "tcp"
    host_ip: Address | None = Field(None, alias="hostIP")


class Network(Spec):
    """`bridge`: an address of its own on `network`, with `ports` mapped; `host`: the node's network as it is; `none`: a
    network namespace with `lo` only.
    """

    mode: Literal["bridge", "host", "none"] = "bridge"
    network: Name = "default"
    ports: Listed[PortSpec] = ()


class Dns(Spec):
    """What goes into the sandbox's /etc/resolv.conf; all empty: the host's."""

    servers: Listed[Address] = ()
    searches: Listed[Hostname] = ()
    options: Listed[DnsOption] = ()


class UserNamespace(Spec):
    """Whose user ids the sandbox has: the node's, or (`auto`) a range of 65536 of its own."""

    mode: Literal["host", "auto"] = "host"


class VirtualMachine(Spec):
    """The machine of a sandbox that is one: `memory` in bytes; `kernel`: a file of the node. None: the driver's own."""

    cpus: Annotated[int, Field(ge=1, le=64)] | None = None
    memory: MachineMemory | None = None
    kernel: AbsolutePath | None = None


class SandboxSpec(Spec):
    """Namespaces that containers share. `hostname` None: the sandbox's name."""

    runtime: Name
    network: Network = Network.model_construct()
    hostname: Hostname | None = None
    dns: Dns = Dns.model_construct()
    sysctls: dict[SysctlName, str] = Field({})
    resources: Resources = Resources.model_construct()
    share_process_namespace: bool = Field(False, alias="shareProcessNamespace")
    user_namespace: UserNamespace = Field(UserNamespace.model_construct(), alias="userNamespace")
    vm: VirtualMachine | None = None


def sandbox_conflicts(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """What no field shows alone: sysctls of a network that is the node's own, ports without a bridge."""
    is_module = spec.get("runtime") == WASM
    yield from (module_network_conflicts if is_module else network_conflicts)(mapping_at(spec, "network"))
    if is_module and spec.get("shareProcessNamespace") is True:
        yield Problem(("shareProcessNamespace",), "is not for modules", "leave it out", at_key=True)
    if mapping_at(spec, "userNamespace").get("mode") == "auto":
        path: Path = ("userNamespace", "mode")
        if is_module:
            yield Problem(path, "is not for modules", "leave it out")
        elif mapping_at(spec, "network").get("mode") == "host":
            yield Problem(path, "cannot own the node's network (network.mode is host)", "choose another network")
    yield from _machine_conflicts(spec)
    if mapping_at(spec, "network").get("mode") == "host":
        for name in mapping_at(spec, "sysctls"):
            if name.startswith("net."):
                advice = "leave it out, or give the sandbox its own network"
                yield Problem(("sysctls", name), "would change the node's own network (network.mode is host)", advice)


def _machine_conflicts(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """A machine of what runs on this kernel, and what a machine cannot share with the node."""
    runtime = spec.get("runtime")
    if "vm" in spec and runtime in PROCESSES:
        yield Problem(("vm",), f"is for a virtual machine, and {runtime} is none", "write runtime: vm", at_key=True)
    if runtime == VM:
        yield from machine_network_conflicts(mapping_at(spec, "network"))
        if spec.get("shareProcessNamespace") is True:
            yield Problem(("shareProcessNamespace",), "is not for virtual machines", "leave it out", at_key=True)
        if mapping_at(spec, "userNamespace").get("mode") == "auto":
            yield Problem(
                ("userNamespace", "mode"), "is not for virtual machines", "leave it out: all its ids are its own"
            )
        if mapping_at(spec, "sysctls"):
            yield Problem(("sysctls",), "would not reach the guest's kernel", "leave it out", at_key=True)


def machine_network_conflicts(network: Mapping[str, Any]) -> Iterator[Problem]:
    """A machine has a kernel of its own, so it cannot use the node's network as it is."""
    if network.get("mode") == "host":
        yield Problem(("network", "mode"), "is host, which a virtual machine cannot have", "write bridge or none")


def module_network_conflicts(network: Mapping[str, Any]) -> Iterator[Problem]:
    """A module has no network."""
    if (mode := network.get("mode", "none")) != "none":
        yield Problem(("network", "mode"), f"is {mode}: a module has no network", "write none, or leave network out")
    for field in ("network", "ports"):
        if network.get(field):
            yield Problem(("network", field), "is not for a module", "leave it out", at_key=True)


def network_conflicts(network: Mapping[str, Any]) -> Iterator[Problem]:
    """What no field of a network shows alone: what only a bridge has, and a port of the host given twice."""
    mode = network.get("mode", "bridge")
    for field in ("network", "ports"):
        if mode != "bridge" and network.get(field):
            advice = f"leave it out, or write mode: bridge instead of {mode}"
            yield Problem(("network", field), "is only for a bridge", advice, at_key=True)
    seen: dict[tuple[Any, ...], int] = {}
    for i, port in mappings_in(network, "ports"):
        wanted = (port.get("host"), port.get("protocol", "tcp"), port.get("hostIP"))
        if (first := seen.setdefault(wanted, i)) != i:
            yield Problem(("network", "ports", i, "host"), f"is that of ports[{first}] too", "map another port")
