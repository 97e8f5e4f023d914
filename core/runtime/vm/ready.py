"""Whether virtual machines can run on this node, and how: what is installed, what was prepared, how it is accelerated.

Rules of this file: nothing is started; whether KVM works is only known once the first machine, or `runtime prepare vm`,
has tried it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from core import proc
from core.clock import SystemClock
from core.errors import AgentError
from core.process import Launcher, find
from core.runtime.vm.acceleration import kvm
from core.runtime.vm.boards import checked
from core.runtime.vm.installed import GUEST, Installed, check_sharing, installed
from core.values import dataclass

_TOOLS: Final = (("mkfs.erofs", "erofs-utils"), ("mkfs.ext4", "e2fsprogs"))


def guest_of(options: Mapping[str, str]) -> Path:
    """The folder with kernel and initramfs that a runtime is configured with."""
    return Path(options.get("guest", GUEST))


@dataclass(frozen=True, slots=True)
class Ready:
    """What was found; `problem` says why no machine can run, `advice` what to do about it.

    `can` has `acceleration` ([kvm], [tcg] or, as long as nobody has tried it, [untried]) and `volumes`.
    """

    can: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    problem: str = ""
    advice: str = ""


def look(qemu: str, options: Mapping[str, str], state: Path) -> Ready:
    """See what a machine needs beside QEMU, whose path is given; `options`: the runtime's; `state` as in `kvm`."""
    guest = guest_of(options)
    try:
        if options.get("machine"):
            checked(options["machine"])
        found = installed(guest, qemu=qemu)
        for program, package in _TOOLS:
            find(program, package)
    except AgentError as error:
        return Ready(problem=str(error), advice=error.hint())
    warnings: tuple[str, ...] = ()
    try:
        check_sharing(found)
    except AgentError as error:
        warnings = (f"{error}: {error.hint()}",)
    return Ready({"acceleration": [_acceleration(found, guest, state)], "volumes": not warnings}, warnings)


def _acceleration(found: Installed, guest: Path, state: Path) -> str:
    asked = kvm(guest, state, Launcher(), SystemClock(), proc.boot_id())
    works = asked.known(found) if asked.is_there else False
    return "untried" if works is None else "kvm" if works else "tcg"
