"""Making fetchers. Light: git's library is loaded with the first one of git; who has none does not pay for it."""

from __future__ import annotations

import os
import re
from typing import Final

from core.errors import Unsupported
from core.process import Launcher, find
from reconciler.sources.git_access import Access
from reconciler.sources.repositories import Home, Limits, Wanted
from reconciler.sources.revisions import Fetcher

OLDEST: Final = (2, 32)
"""Before it git obeys a person's own configuration, whatever GIT_CONFIG_GLOBAL says."""


def git_fetcher(home: Home, what: Wanted, shown: Access, launcher: Launcher, limits: Limits) -> Fetcher:
    """A `Fetcher` of a git repository. Raises `MissingTool` where git (or ssh, for ssh) is not on the node, and
    `Unsupported` where git is too old to be held to our configuration."""
    program = find("git", "git")
    said = launcher.check([program, "version"], timeout=limits.seconds).text()
    found = re.search(r"(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        raise Unsupported(
            f"{said.strip()[:60]} on this node is too old for Sources",
            advice=f"Install git {OLDEST[0]}.{OLDEST[1]} or newer.",
        )
    if what.address.scheme == "ssh":
        find("ssh", "openssh-client")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # it would look for git by itself, and complain
    from reconciler.sources.git import Commands, GitFetcher

    return GitFetcher(home, what, shown, Commands(program, launcher, limits))
