"""The messages of a shim as tables: task service, bootstrap, events (containerd, api/*.proto; numbers are theirs)."""

from __future__ import annotations

from typing import Final

from core.runtime.ttrpc.frames import ANY
from core.runtime.wire import Table, blob, boolean, integer, message, string, strings, uint

STAMP: Final[Table] = {"seconds": integer(1), "nanos": integer(2)}
EMPTY: Final[Table] = {}
_ONE: Final[Table] = {"id": string(1), "exec_id": string(2)}
_PID: Final[Table] = {"pid": uint(1)}
_ENDED: Final[Table] = {"exit_status": uint(1), "exited_at": message(2, STAMP)}

# containerd.runtime.bootstrap.v1
BOOTSTRAP_RESULT: Final[Table] = {
    "version": integer(1),
    "address": string(2),
    "protocol": string(3),
    "metadata": strings(5),
}

# containerd.types
MOUNT: Final[Table] = {"type": string(1), "source": string(2), "target": string(3), "options": string(4, repeated=True)}

# containerd.task.v2 and v3: the same methods, messages and numbers.
TASK: Final = ("containerd.task.v2.Task", "containerd.task.v3.Task")
METHODS: Final[dict[str, tuple[Table, Table]]] = {
    "State": (
        _ONE,
        {"pid": uint(3), "status": integer(4), "exit_status": uint(9), "exited_at": message(10, STAMP)},
    ),
    "Create": (
        {
            "id": string(1),
            "bundle": string(2),
            "rootfs": message(3, MOUNT, repeated=True),
            "terminal": boolean(4),
            "stdin": string(5),
            "stdout": string(6),
            "stderr": string(7),
            "checkpoint": string(8),
            "options": message(10, ANY),
        },
        _PID,
    ),
    "Start": (_ONE, _PID),
    "Delete": (_ONE, {"pid": uint(1), "exit_status": uint(2), "exited_at": message(3, STAMP)}),
    "Pids": (_ONE, {"processes": message(1, _PID, repeated=True)}),
    "Pause": (_ONE, EMPTY),
    "Resume": (_ONE, EMPTY),
    "Checkpoint": ({"id": string(1), "path": string(2), "options": message(3, ANY)}, EMPTY),
    "Kill": ({**_ONE, "signal": uint(3), "all": boolean(4)}, EMPTY),
    "Exec": (
        {
            **_ONE,
            "terminal": boolean(3),
            "stdin": string(4),
            "stdout": string(5),
            "stderr": string(6),
            "spec": message(7, ANY),
        },
        EMPTY,
    ),
    "ResizePty": ({**_ONE, "width": uint(3), "height": uint(4)}, EMPTY),
    "CloseIO": ({**_ONE, "stdin": boolean(3)}, EMPTY),
    "Update": ({"id": string(1), "resources": message(2, ANY)}, EMPTY),
    "Wait": (_ONE, _ENDED),
    "Stats": ({"id": string(1)}, {"stats": message(1, ANY)}),
    "Connect": ({"id": string(1)}, {"shim_pid": uint(1), "task_pid": uint(2), "version": string(3)}),
    "Shutdown": ({"id": string(1), "now": boolean(2)}, EMPTY),
}

# containerd.v1.types.Status
CREATED, RUNNING, STOPPED, PAUSED, PAUSING = 1, 2, 3, 4, 5

# containerd.runtime.sandbox.v1
SANDBOX: Final = "containerd.runtime.sandbox.v1.Sandbox"
_BOX: Final[Table] = {"sandbox_id": string(1)}
SANDBOX_METHODS: Final[dict[str, tuple[Table, Table]]] = {
    "CreateSandbox": (
        {
            "sandbox_id": string(1),
            "bundle_path": string(2),
            "rootfs": message(3, MOUNT, repeated=True),
            "options": message(4, ANY),
            "netns_path": string(5),
            "annotations": strings(6),
        },
        EMPTY,
    ),
    "StartSandbox": (_BOX, {"pid": uint(1), "created_at": message(2, STAMP)}),
    "Platform": (_BOX, {"platform": message(1, {"os": string(1), "architecture": string(2), "variant": string(3)})}),
    "StopSandbox": ({**_BOX, "timeout_secs": uint(2)}, EMPTY),
    "WaitSandbox": (_BOX, _ENDED),
    "SandboxStatus": (
        {**_BOX, "verbose": boolean(2)},
        {"sandbox_id": string(1), "pid": uint(2), "state": string(3), "info": strings(4)},
    ),
    "PingSandbox": (_BOX, EMPTY),
    "ShutdownSandbox": (_BOX, EMPTY),
    "SandboxMetrics": (_BOX, {"metrics": message(1, {"id": string(2), "data": message(3, ANY)})}),
}

# What an Any holds.
RUNC_OPTIONS: Final[Table] = {"binary_name": string(6), "root": string(7), "systemd_cgroup": boolean(9)}
RUNC_OPTIONS_URL: Final = "containerd.runc.v1.Options"
CHECKPOINT_OPTIONS: Final[Table] = {"exit": boolean(1), "image_path": string(8), "work_path": string(9)}
CHECKPOINT_OPTIONS_URL: Final = "containerd.runc.v1.CheckpointOptions"
OTHER_OPTIONS: Final[Table] = {"type_url": string(1), "config_path": string(2), "config_body": blob(3)}
OTHER_OPTIONS_URL: Final = "runtimeoptions.v1.Options"
METRICS_V1_URL: Final = "io.containerd.cgroups.v1.Metrics"
METRICS_V1: Final[Table] = {
    "pids": message(2, {"current": uint(1)}),
    "cpu": message(3, {"usage": message(1, {"total": uint(1)})}),
    "memory": message(4, {"total_inactive_file": uint(30), "usage": message(33, {"usage": uint(2)})}),
    "memory_oom_control": message(9, {"oom_kill": uint(3)}),
}
METRICS_V2_URL: Final = "io.containerd.cgroups.v2.Metrics"
METRICS_V2: Final[Table] = {
    "pids": message(1, {"current": uint(1)}),
    "cpu": message(2, {"usage_usec": uint(1)}),
    "memory": message(4, {"inactive_file": uint(13), "usage": uint(32)}),
    "memory_events": message(8, {"oom_kill": uint(5)}),
}
OCI_URL: Final = "types.containerd.io/opencontainers/runtime-spec/1/"

# containerd.services.events.ttrpc.v1
FORWARD: Final = "containerd.services.events.ttrpc.v1.Events/Forward"
FORWARD_REQUEST: Final[Table] = {
    "envelope": message(
        1, {"timestamp": message(1, STAMP), "namespace": string(2), "topic": string(3), "event": message(4, ANY)}
    )
}
TASK_OOM: Final[Table] = {"container_id": string(1)}
OOM_TOPIC: Final = "/tasks/oom"
