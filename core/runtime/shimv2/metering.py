"""The counters that a shim tells, as the ones that a control group has (containerd/cgroups, metrics.proto). Pure.

Shims of virtual machines tell what the guest's kernel counts; the node's sees the machine as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import Unsupported
from core.runtime.ports import Stats
from core.runtime.shimv2 import messages
from core.runtime.wire import decode


def read(told: Mapping[str, Any] | None) -> Stats:
    """The counters in an Any; raises `Unsupported` for a kind that is not known, `Malformed`."""
    kind = "" if told is None else str(told["type_url"]).rpartition("/")[2]
    if told is not None and kind == messages.METRICS_V1_URL:
        return _v1(decode(messages.METRICS_V1, told["value"]))
    if told is not None and kind == messages.METRICS_V2_URL:
        return _v2(decode(messages.METRICS_V2, told["value"]))
    raise Unsupported(f"the shim counts in {kind[:100]!r}; this agent knows the counters of cgroups, v1 and v2")


def _v1(said: Mapping[str, Any]) -> Stats:
    cpu, memory = said["cpu"] or {"usage": None}, said["memory"] or {"usage": None, "total_inactive_file": 0}
    held = (memory["usage"] or {"usage": 0})["usage"] - memory["total_inactive_file"]
    return Stats(
        cpu_seconds=(cpu["usage"] or {"total": 0})["total"] / 1e9,
        memory=max(0, held),
        pids=(said["pids"] or {"current": 0})["current"],
        oom_kills=(said["memory_oom_control"] or {"oom_kill": 0})["oom_kill"],
    )


def _v2(said: Mapping[str, Any]) -> Stats:
    memory = said["memory"] or {"usage": 0, "inactive_file": 0}
    return Stats(
        cpu_seconds=(said["cpu"] or {"usage_usec": 0})["usage_usec"] / 1e6,
        memory=max(0, memory["usage"] - memory["inactive_file"]),
        pids=(said["pids"] or {"current": 0})["current"],
        oom_kills=(said["memory_events"] or {"oom_kill": 0})["oom_kill"],
    )
