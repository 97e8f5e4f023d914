"""The kernel's capabilities (linux/capability.h), by name."""

from __future__ import annotations

from typing import Annotated, Final

from reconciler.model.kinds.quantities import read_by, text_of
from reconciler.model.problems import Wrong

ALL: Final = "ALL"
_NAMES: Final = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
    SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
    AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
    PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITIES: Final = tuple(f"CAP_{name}" for name in _NAMES.split())
"""In the order of their numbers, from 0."""


def parse_capability(value: object) -> str:
    """`NET_ADMIN` or `CAP_NET_ADMIN` → `CAP_NET_ADMIN`; `ALL` stays."""
    text = text_of(value)
    name = text if text.startswith("CAP_") else f"CAP_{text}"
    if text == ALL or name in CAPABILITIES:
        return text if text == ALL else name
    raise Wrong("is not a capability", "write a name of capabilities(7) in capitals, such as NET_BIND_SERVICE, or ALL")


CapabilityName = Annotated[
    str, *read_by(parse_capability, {"enum": [*CAPABILITIES, *(n[4:] for n in CAPABILITIES), ALL]})
]
