"""Limits as the OCI runtime-spec has them (config-linux.md, `linux.resources`). Pure.

Rules of this file: what this node cannot hold is `Unsupported`, never left out: a limit that does not hold is none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final

from core.errors import Invalid, Unsupported
from core.runtime.node import Node
from core.values import dataclass

PIDS_DEFAULT: Final = 4096
CPU_PERIOD: Final = 100_000
_LIST: Final = re.compile(r"\d{1,5}(?:-\d{1,5})?(?:,\d{1,5}(?:-\d{1,5})?)*")


@dataclass(frozen=True, slots=True)
class Resources:
    """`cpu` in cores, `memory` in bytes; None: no limit of its own.

    `cpus` and `mems`: lists such as `0-2,4` of processors and memory nodes ("": all). `hugepages`: bytes by the size of
    a page (`2MB`, as the kernel writes it). `io_weight`: 10 to 1000, against the 100 or so of others.
    """

    cpu: float | None = None
    memory: int | None = None
    pids: int | None = PIDS_DEFAULT
    cpus: str = ""
    mems: str = ""
    hugepages: Mapping[str, int] = field(default_factory=dict)
    io_weight: int | None = None


def resources(wanted: Resources, node: Node) -> dict[str, Any]:
    """OCI `linux.resources`: for a spec, for `Shim.update` and for a sandbox.

    Memory and swap together are held to `memory`, where the node accounts for swap. Raises `Invalid` on what is not
    positive, `Unsupported` on what this node cannot hold.
    """
    result: dict[str, Any] = {}
    if cpu := {**_share(wanted.cpu), **_places(wanted, node)}:
        result["cpu"] = cpu
    if wanted.memory is not None:
        if not 0 < wanted.memory < 1 << 63:
            raise Invalid(f"memory {wanted.memory} is not a number of bytes")
        result["memory"] = {"limit": wanted.memory} | ({"swap": wanted.memory} if node.accounts_swap else {})
    if wanted.pids is not None:
        if not 0 < wanted.pids <= 1 << 22:
            raise Invalid(f"pids {wanted.pids} is not a number of processes")
        result["pids"] = {"limit": wanted.pids}
    if wanted.hugepages:
        result["hugepageLimits"] = [_pages(size, most, node) for size, most in sorted(wanted.hugepages.items())]
    if wanted.io_weight is not None:
        if not node.weighs_io:
            advice = "Leave `resources.ioWeight` out, or choose an I/O scheduler that weighs (bfq)."
            raise Unsupported("this node's control groups do not weigh I/O", advice=advice)
        if not 10 <= wanted.io_weight <= 1000:
            raise Invalid(f"ioWeight {wanted.io_weight} is not within 10 and 1000")
        result["blockIO"] = {"weight": wanted.io_weight}
    return result


def _share(cpu: float | None) -> dict[str, int]:
    if cpu is None:
        return {}
    if not 0 < cpu <= 1 << 20:
        raise Invalid(f"cpu {cpu} is not a number of cores")
    quota = max(1000, round(cpu * CPU_PERIOD))
    return {"quota": quota, "period": CPU_PERIOD, "shares": max(2, min(262_144, round(cpu * 1024)))}


def _places(wanted: Resources, node: Node) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, text, there in (("cpus", wanted.cpus, node.cpus), ("mems", wanted.mems, node.mems)):
        if not text:
            continue
        if not there:
            raise Unsupported("this node has no cpuset control group", advice="Leave `resources.cpuset` out.")
        if missing := sorted(numbers(text) - numbers(there)):
            advice = f"Choose among {there}."
            raise Invalid(f"cpuset.{name} {text}: this node has no {', '.join(map(str, missing))}", advice=advice)
        found[name] = text
    return found


def numbers(text: str) -> frozenset[int]:
    """The numbers of a list such as `0-2,4`; raises `Invalid`."""
    if not _LIST.fullmatch(text):
        raise Invalid(f"{text!r} is not a list of numbers", advice="Write numbers and ranges: 0-2,4")
    pairs = [part.partition("-") for part in text.split(",")]
    return frozenset(n for first, _, last in pairs for n in range(int(first), int(last or first) + 1))


def _pages(size: str, most: int, node: Node) -> dict[str, Any]:
    if most < 0 or most >= 1 << 63:
        raise Invalid(f"hugepages {size}: {most} is not a number of bytes")
    if size not in node.hugepages:
        has = f"it limits {', '.join(sorted(node.hugepages))}" if node.hugepages else node.no_hugepages
        raise Unsupported(f"this node cannot limit pages of {size}: {has}", advice="Leave `resources.hugepages` out.")
    return {"pageSize": size, "limit": most}
