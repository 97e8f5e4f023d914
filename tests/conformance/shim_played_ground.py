"""What the suites stand on when a shim is played: a driver for it, and nothing of it left behind."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from core import cgroups, fsio
from core.clock import SystemClock
from core.process import Launcher
from core.runtime.ports import NewTask
from core.runtime.shimv2.driver import ShimV2
from core.runtime.shimv2.program import ShimProgram
from tests.conformance.shim_ground import OciGround, skip_unless_possible
from tests.fakes import played_shim

NAME = "containerd-shim-played-v1"


class PlayedGround(OciGround):
    """The ground of OCI runtimes, with the driver of a shim that plays what it is told to."""

    shim: ShimV2  # type: ignore[assignment]  # in place of the other driver

    def __init__(self, folder: Path, root: Path, *plays: str, **options: str) -> None:
        self.played = folder / "played"
        program = played_shim.write(folder / NAME, self.played, *plays)
        self.program = ShimProgram(str(program), options)
        super().__init__(folder, root)

    def again(self) -> ShimV2:  # type: ignore[override]  # in place of the other driver
        """The driver of a new engine, with a helpers' group of its own, as each engine has."""
        tracking = self.found.tracking
        assert tracking is not None
        self.helpers = cgroups.make(tracking, f"{self.group}/helpers-{secrets.token_hex(4)}")
        return ShimV2(self.state, self.group, Launcher(self.helpers), SystemClock(), self.boot, self.program)

    def task(self, *args: str, id: str = "one", **wanted: object) -> NewTask:
        """As for OCI runtimes, in any sandbox."""
        sandbox = str(wanted.pop("sandbox", "box"))
        return replace(super().task(*args, id=id, **wanted), sandbox=sandbox)

    def asked(self) -> list[str]:
        """The calls that the shim has had."""
        return played_shim.asked(self.played)

    def leftovers(self) -> list[str]:
        """As for OCI runtimes, and what the shim itself keeps."""
        (self.state / self.tools.own_folder).mkdir(exist_ok=True)
        left = [str(path) for path in (self.played / "runc").glob("*/*")]
        left += [str(path) for path in self.played.glob("*.sock")]
        return [*super().leftovers(), *left, *(str(path) for path in (self.state / "shim" / NAME).glob("*/*"))]

    def end(self) -> None:
        """As for OCI runtimes; the folder of the shim goes too."""
        super().end()
        fsio.remove_tree(self.played)


def skip_without_shim() -> None:
    """Skip with the reason."""
    skip_unless_possible()
    if shutil.which(played_shim.REAL) is None:
        pytest.skip(f"not installed: {played_shim.REAL}")
