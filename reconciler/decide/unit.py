"""The systemd unit of the agent, as text from values (systemd.unit(5), systemd.service(5), systemd.exec(5)).

Rules of this file: what is limited here binds every container too, since a container inherits it from the agent, so
only what no container under the default profile may do anyway is taken away. Nothing here makes a mount or user
namespace: what the agent mounts would be seen by nobody else. Why each directive is there: docs/decisions/.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from core.errors import Invalid
from core.values import dataclass
from reconciler.model.identity import instance_of

DEFAULT_ROOT: Final = Path("/var/lib/reconciler")
ENVIRONMENT_FILE: Final = Path("/etc/reconciler/environment")

WITHHELD: Final = (
    "CAP_AUDIT_CONTROL",
    "CAP_BLOCK_SUSPEND",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_PACCT",
    "CAP_WAKE_ALARM",
)
"""Capabilities that neither agent nor runtime uses and no container has by default; one that asks gets a note."""

REFUSED_CALLS: Final = ("@reboot", "@swap", "@obsolete", "@module")
"""Sets of system calls (`systemd-analyze syscall-filter`) that neither we nor the default profile of containers use."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What a unit is made of: the command line of the program, where `root` lies, the `instance` of that root."""

    program: Path
    options: Sequence[str]
    root: Path

    @property
    def name(self) -> str:
        """`reconciler.service` for the default root, else with the root's instance, as all names of a node have it."""
        if self.root == DEFAULT_ROOT:
            return "reconciler.service"
        return f"reconciler-{instance_of(str(self.root))}.service"

    def text(self) -> str:
        """The file's content. Raises `Invalid` for a path that no unit can name."""
        command = " ".join([quoted(str(self.program), program=True), *map(quoted, [*self.options, "agent"])])
        return TEXT.format(
            root=quoted(str(self.root), program=True),
            command=command,
            environment=ENVIRONMENT_FILE,
            withheld=" ".join(WITHHELD),
            refused=" ".join(REFUSED_CALLS),
        )


def quoted(word: str, *, program: bool = False) -> str:
    """`word` as one word of a directive; a `program` or a path has no variables in it, so that its `$` stays.

    Raises `Invalid` for what has control characters in it, or is not UTF-8.
    """
    if not all(char.isprintable() for char in word):
        raise Invalid(f"{word!r} cannot stand in a systemd unit", advice="Use a path of printable characters.")
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text if program else text.replace("$", "$$")}"'


TEXT: Final = """\
# Written by `reconciler agent install`, which writes it anew; own settings go into a drop-in: systemctl edit.
[Unit]
Description=reconciler, which keeps this node what its manifests say
RequiresMountsFor={root}
After=network.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
EnvironmentFile=-{environment}
Restart=always
RestartSec=5s
TimeoutStartSec=infinity
TimeoutStopSec=90s
WatchdogSec=60s
KillMode=process
Delegate=yes
OOMPolicy=continue
TasksMax=infinity
CapabilityBoundingSet=~{withheld}
SystemCallFilter=~{refused}
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
