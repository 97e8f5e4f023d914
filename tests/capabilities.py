"""What each runtime lacks of the suite that they all pass, and why; and which rows of the docs' tables tell people so.

A test that needs what a runtime lacks is skipped with these words, or shows that asking for it is refused. What a
driver lacks of the suite of every Shim stands in the table of its file in `tests/conformance`, by the names of tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import pytest

PROCESSES: Final = ("runc", "gvisor", "runc-v2", "vm")
"""Those that run an ordinary image's processes."""
EVERY: Final = (*PROCESSES, "wasm")

_MODULE: Final = "a module is one function that runs: nothing else can be started in it"
_NETWORK: Final = "a module has no network"
LACKS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "runc": {},
        "runc-v2": {},
        "vm": {
            "host network": "a machine has a card of its own",
            "own users": "the guest has users of its own anyway",
            "shared processes": "each container has its processes for itself in the guest",
            "devices": "those of the node are not the guest's",
        },
        "gvisor": {
            "cp from a mount": "what the sentry has mounted is not seen from the node",
            "own users": "runsc joins no user namespace",
            "shared processes": "sentries share no process namespace",
            "devices": "the sentry opens none of the node's",
        },
        "wasm": {
            "exec": _MODULE,
            "probe": _MODULE,
            "hooks": _MODULE,
            "oom": "memory.grow beyond the limit is refused, so a module is never killed for it",
            "grace": "WASI has no signals, so a module cannot ignore one",
            "localhost": _NETWORK,
            "ports": _NETWORK,
            "host network": _NETWORK,
            "cp": "the image is not seen by its module",
            "cp from a mount": "the image is not seen by its module",
            "confinement": "a module can call nothing that would have to be refused",
            "own users": "a module has no users",
            "shared processes": "a module sees no processes",
            "devices": "a module has no devices",
        },
    }
)
"""By runtime, then by the name that a test asks for."""

ROWS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "create, start, stop, restart, adopt; logs, exit codes": (
            "life",
            "test_a_task_goes_from_absent_to_absent_by_the_table",
            "test_the_exit_code_is_the_programs_own",
            "test_a_new_driver_sees_what_an_earlier_one_left",
        ),
        "variables, volumes, secrets, files": ("inputs",),
        "`exec`, probes, hooks": (
            "exec",
            "probe",
            "hooks",
            "test_exec_returns_the_programs_code",
            "test_exec_takes_user_folder_and_environment",
        ),
        "stop signals and their grace; `tty`, `stdin`": (
            "grace",
            "test_a_signal_that_the_program_minds_ends_it",
            "test_everyone_is_signalled_when_everyone_is_meant",
            "test_stdin_can_be_closed",
            "test_a_terminal_has_the_size_it_is_told",
        ),
        "`cp`": ("cp", "cp from a mount"),
        "network": ("ports", "host network"),
        "containers of a sandbox over `localhost`": ("localhost",),
        "limits, changed in place": ("test_limits_change_in_place",),
        "`OOMKilled`": ("oom", "test_a_task_over_its_memory_is_killed_and_says_so"),
        "capabilities, seccomp, read-only root": ("confinement",),
        "`userNamespace`, `shareProcessNamespace`": ("own users", "shared processes"),
        "devices, CDI": ("devices",),
    }
)
"""What each row of the README's table is about: names of the tables above, and of tests of the suite of every Shim."""

NOT_THERE: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "`exec`": ("exec", "test_exec_returns_the_programs_code", "test_exec_takes_user_folder_and_environment"),
        "`cp`": ("cp",),
        "probes": ("probe",),
        "hooks": ("hooks",),
        "`tty`": ("test_a_terminal_has_the_size_it_is_told",),
        "`stdin`": ("test_stdin_can_be_closed",),
        "devices of the node": ("devices",),
        "`shareProcessNamespace`": ("shared processes",),
        "`userNamespace`": ("own users",),
    }
)
"""What the last row of a table in docs/runtimes.md names when a runtime lacks it."""


def needs(runtime: str, what: str) -> None:
    """Skip the test if the runtime lacks that."""
    if (why := LACKS[runtime].get(what)) is not None:
        pytest.skip(f"{runtime}: {why}")
