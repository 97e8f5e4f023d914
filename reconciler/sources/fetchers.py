"""Making fetchers. Light: git's library is loaded with the first one of git; who has none does not pay for it."""

from __future__ import annotations

import os

from core.process import Launcher, find
from reconciler.sources.git_access import Access
from reconciler.sources.repositories import Home, Limits, Wanted
from reconciler.sources.revisions import Fetcher


def git_fetcher(home: Home, what: Wanted, shown: Access, launcher: Launcher, limits: Limits) -> Fetcher:
    """A `Fetcher` of a git repository. Raises `MissingTool` where git (or ssh, for ssh) is not on the node."""
    program = find("git", "git")
    if what.address.scheme == "ssh":
        find("ssh", "openssh-client")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # it would look for git by itself, and complain
    from reconciler.sources.git import Commands, GitFetcher

    return GitFetcher(home, what, shown, Commands(program, launcher, limits))
