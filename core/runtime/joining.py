"""A further process in a task, as the OCI runtime-spec describes one (config.md, `process`). Pure.

Rules of this file: the whole description is given to the runtime, which adds nothing: a user that is asked for gets its
own groups and none of the container's (CVE-2022-36109 in its other form).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.runtime.ports import ExecSpec


def joined(first: Mapping[str, Any], wanted: ExecSpec) -> dict[str, Any]:
    """The process of `wanted` in a task whose own is `first`: its environment, folder and user where none is given."""
    env = dict(pair.partition("=")[::2] for pair in (*first["env"], *wanted.env))
    if wanted.tty:
        env.setdefault("TERM", "xterm")
    process = {
        **first,
        "terminal": wanted.tty,
        "args": list(wanted.args),
        "env": [f"{name}={value}" for name, value in env.items()],
        "cwd": wanted.cwd or first["cwd"],
        "user": user(wanted.user) if wanted.user else first["user"],
    }
    process.pop("consoleSize", None)
    return process


def user(numbers: str) -> dict[str, Any]:
    """The OCI form of `uid[:gid[,gid…]]`; the first group is among the others too, or it could be shed."""
    uid_gid, *more = numbers.split(",")
    uid, _, gid = uid_gid.partition(":")
    return oci_user(int(uid), int(gid or 0), tuple(map(int, more)))


def oci_user(uid: int, gid: int, groups: tuple[int, ...]) -> dict[str, Any]:
    """A file that denies something to a group could be read by who sheds that group: so each is an additional one."""
    return {"uid": uid, "gid": gid, "additionalGids": sorted({gid, *groups})}
