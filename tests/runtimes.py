"""The OCI runtimes that the suites run on, and what this machine needs for each.

crun refuses a machine that mounts cgroup v2 with controllers beside v1. There every call of it gets a mount namespace
of its own without that mount, by a program of the same name that stands before it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import pytest

from core import cgroups

RUNTIMES: Final = ("runc", "crun")
QUICK: Final = ("runc", pytest.param("crun", marks=pytest.mark.soak))
"""Where both have been seen to be alike: the second one in the long tests only."""
_ALONE: Final = """#!/bin/sh
exec unshare --mount --propagation private sh -c 'umount "$0" && exec "$@"' {mounted} {program} "$@"
"""


def program(name: str, folder: Path) -> str:
    """The program to give as a runtime's path; `folder` is made for what has to stand before it."""
    found = shutil.which(name)
    assert found is not None, f"{name} is not installed"
    here = cgroups.hierarchies()
    if name != "crun" or here.v2 is None or not here.v1:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    before = folder / name
    if not before.exists():
        before.write_text(_ALONE.format(mounted=here.v2, program=found))
        before.chmod(0o755)
    return str(before)
