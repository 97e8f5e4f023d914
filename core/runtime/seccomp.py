"""The default seccomp profile: an allow list, for the capabilities that a task has and the architecture it runs on.

Rules of this file: what is not listed is refused with EPERM (the runtime itself answers ENOSYS to calls newer than the
newest listed, so that a C library falls back). The lists lie in `seccomp.json`: `always`, per architecture, and per
capability: a call that only a capability makes useful is allowed only with it. Left out for their record of kernel
faults: io_uring, userfaultfd, keyrings, sockets of AF_ALG and AF_VSOCK. Names that a kernel or library does not know
are skipped by the runtime. Form: OCI runtime-spec, config-linux.md, seccomp.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping
from importlib import resources
from typing import Any, Final

from core.errors import Invalid, Unsupported

_ARCHITECTURES: Final[Mapping[str, tuple[str, ...]]] = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
_ALLOW: Final = "SCMP_ACT_ALLOW"
_EPERM: Final = 1
_ENOSYS: Final = 38
_NAMESPACES: Final = 0x7E020000
"""CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET."""
_PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""PER_LINUX, PER_LINUX32, each with UNAME26, and the question what it is."""
_AF_ALG: Final = 38
_AF_VSOCK: Final = 40
_KEYS: Final = frozenset(
    {"defaultAction", "defaultErrnoRet", "architectures", "flags", "syscalls", "listenerPath", "listenerMetadata"}
)


@functools.cache
def _lists() -> dict[str, Any]:
    text = resources.files("core.runtime").joinpath("seccomp.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def _argument(index: int, operator: str, value: int, second: int = 0) -> dict[str, Any]:
    return {"index": index, "op": f"SCMP_CMP_{operator}", "value": value, "valueTwo": second}


def _allow(*names: str, args: Collection[dict[str, Any]] = ()) -> dict[str, Any]:
    return {"names": sorted(names), "action": _ALLOW, **({"args": list(args)} if args else {})}


def default(capabilities: Collection[str], architecture: str) -> dict[str, Any]:
    """The profile for a task with these capabilities (`CAP_…`) on `architecture` (as uname says it).

    Raises `Unsupported` on an architecture for which none is written.
    """
    if architecture not in _ARCHITECTURES:
        raise Unsupported(
            f"there is no default seccomp profile for {architecture}", advice="Set `seccomp: unconfined` or a path."
        )
    lists = _lists()
    names = {*lists["always"], *lists[architecture]}
    for capability in capabilities:
        names.update(lists["capabilities"].get(capability, ()))
    rules = [
        _allow(*names),
        *(_allow("personality", args=[_argument(0, "EQ", value)]) for value in _PERSONALITIES),
        # Rules on one argument are alternatives, so two families are left out by three ranges.
        _allow("socket", args=[_argument(0, "LT", _AF_ALG)]),
        _allow("socket", args=[_argument(0, "EQ", _AF_ALG + 1)]),
        _allow("socket", args=[_argument(0, "GT", _AF_VSOCK)]),
    ]
    if "CAP_SYS_ADMIN" not in capabilities:
        rules.append(_allow("clone", args=[_argument(0, "MASKED_EQ", _NAMESPACES, 0)]))
        # Its flags lie behind a pointer that a filter cannot follow: let the caller fall back to clone.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "architectures": list(_ARCHITECTURES[architecture]),
        "syscalls": rules,
    }


def parse(text: bytes, name: str) -> dict[str, Any]:
    """A profile out of a file's bytes (≤ 1 MiB, OCI form); `name` is for the error. Raises `Invalid`."""
    try:
        profile = json.loads(text) if len(text) <= 1 << 20 else None
    except ValueError as error:
        raise Invalid(f"{name}: not JSON: {error}") from None
    if not isinstance(profile, dict) or not str(profile.get("defaultAction", "")).startswith("SCMP_ACT_"):
        raise Invalid(f"{name}: not a seccomp profile", advice="Write a JSON object with `defaultAction: SCMP_ACT_…`.")
    if unknown := sorted(set(profile) - _KEYS):
        raise Invalid(
            f"{name}: unknown keys {', '.join(unknown)}",
            advice="Write it in the form of the OCI runtime-spec: `architectures` instead of `archMap`.",
        )
    return profile
