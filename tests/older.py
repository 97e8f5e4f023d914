"""An older version of this program, as it was committed: its files, a command that runs them, a node that it drives."""

import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.conftest import Node

TOP: Final = Path(__file__).resolve().parents[1]
FIRST: Final = "85b1e430b935f15f4cb9383aadc23440a06c454d"
"""The last commit of the first issue: what a node that was set up then runs."""


def known(commit: str) -> bool:
    """Whether this checkout has the commit (a shallow one has not)."""
    found = subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=TOP, capture_output=True)
    return found.returncode == 0


def unpacked(commit: str, folder: Path) -> Path:
    """The Python of an environment in `folder` with that commit's packages and today's libraries."""
    tree, home = folder / "tree", folder / "venv"
    tree.mkdir(parents=True)
    packed = subprocess.run(
        ["git", "archive", "--format=tar", commit, "core", "reconciler", "migrations"],
        cwd=TOP,
        check=True,
        capture_output=True,
    ).stdout
    subprocess.run(["tar", "-x", "-C", tree], input=packed, check=True)
    venv.create(home, symlinks=True)
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "older.pth").write_text(f"{tree}\n{sysconfig.get_paths()['purelib']}\n")
    return home / "bin" / Path(sys.executable).name


@dataclass(slots=True)
class OlderNode(Node):
    """A node that the older version drives."""

    python: Path = Path()

    def arguments(self, *words: str | Path) -> list[str]:
        """The command line of that version's `reconciler WORDS` on this node."""
        place = ["--root", str(self.root), "--state", str(self.state)]
        return [str(self.python), "-P", "-m", "reconciler.cli.main", *place, *map(str, words)]
