"""The spec of a Sandbox, and the network that a Container may ask of its private one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.model.kinds.base import FalseSoFar, Listed, Resources, Spec
from reconciler.model.kinds.quantities import read_by
from reconciler.model.kinds.texts import Address, DnsOption, Hostname, Name, matching
from reconciler.model.problems import Problem, mapping_at

CHOOSE_NETWORK: Final = "choose network: {mode: host} or {mode: none}; bridge comes later"
_SYSCTL: Final = re.compile(r"kernel\.(?:shm[a-z_]+|msg[a-z]+|sem)|fs\.mqueue\.[a-z_]+|net\.[-a-zA-Z0-9_./]{1,200}")
_no_sysctl: Final = matching(
    _SYSCTL,
    "is not a sysctl that belongs to a sandbox",
    "only kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and net.* are its own; the rest is the node's",
)

SysctlName = Annotated[str, *read_by(_no_sysctl, {"pattern": f"^(?:{_SYSCTL.pattern})$"})]


class Network(Spec):
    """`host`: the node's network as it is; `none`: a network namespace with `lo` only."""

    mode: Literal["host", "none"]


class Dns(Spec):
    """What goes into the sandbox's /etc/resolv.conf; all empty: the host's."""

    servers: Listed[Address] = ()
    searches: Listed[Hostname] = ()
    options: Listed[DnsOption] = ()


class UserNamespace(Spec):
    """Whose user ids the sandbox has: the node's, so far."""

    mode: Literal["host"] = "host"


class SandboxSpec(Spec):
    """Namespaces that containers share. `hostname` None: the sandbox's name."""

    runtime: Name
    network: Network
    hostname: Hostname | None = None
    dns: Dns = Dns.model_construct()
    sysctls: dict[SysctlName, str] = Field({})
    resources: Resources = Resources.model_construct()
    share_process_namespace: FalseSoFar = Field(False, alias="shareProcessNamespace")
    user_namespace: UserNamespace = Field(UserNamespace.model_construct(), alias="userNamespace")


def sandbox_conflicts(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """What no field shows alone: sysctls of a network that is the node's own."""
    if mapping_at(spec, "network").get("mode") == "host":
        for name in mapping_at(spec, "sysctls"):
            if name.startswith("net."):
                advice = "leave it out, or give the sandbox its own network"
                yield Problem(("sysctls", name), "would change the node's own network (network.mode is host)", advice)
