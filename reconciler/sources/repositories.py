"""What a Source wants of a repository, where the copy of it lies, and what git may take for it. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from core.errors import Denied, Invalid, Unsupported
from core.values import dataclass
from reconciler.model.kinds.git import GitAddress, parse_commit, parse_git_address, parse_ref_name
from reconciler.model.problems import Wrong


@dataclass(frozen=True, slots=True)
class Ref:
    """What to follow: a branch, a tag, one commit; or `default`, the branch that the repository calls its own."""

    kind: Literal["default", "branch", "tag", "commit"] = "default"
    name: str = ""

    def __str__(self) -> str:
        return "default branch" if self.kind == "default" else f"{self.kind} {self.name}"

    @property
    def remote(self) -> str:
        """Its full name on the server."""
        places = {"default": "HEAD", "branch": f"refs/heads/{self.name}", "tag": f"refs/tags/{self.name}"}
        return places.get(self.kind, self.name)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One repository, what to follow in it, and the folder of it below which manifests lie ("": all)."""

    address: GitAddress
    ref: Ref = Ref()
    path: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """For one run of git: `seconds` of time; `pack` bytes that one fetch may bring; `memory` bytes of address space of
    each process; `cpu` seconds of a processor."""

    seconds: float = 120.0
    pack: int = 1 << 30
    memory: int = 768 << 20
    cpu: int = 300


@dataclass(frozen=True, slots=True)
class Home:
    """Where a fetcher's things lie: `folder` (below root) for good; `private` (below state) while git runs."""

    folder: Path
    private: Path


def wanted(git: Mapping[str, Any], path: str, *, allow_file: bool) -> Wanted:
    """What `spec.git` and `spec.path` of a Source ask for, checked again. Raises `Invalid`, `Unsupported` (semver) and
    `Denied` (`file:`, which only a Source that a person or the configuration wrote may name)."""
    try:
        address = parse_git_address(git.get("url"))
        ref = _ref(git.get("ref") or {})
    except Wrong as error:
        raise Invalid(f"the Source's git: {error.message}", advice=error.advice) from None
    if address.scheme == "file" and not allow_file:
        raise Denied(
            "a Source that came out of another Source may not name a repository on this node",
            advice="Apply this Source by hand, or set sources.git.allowFile in the configuration.",
        )
    return Wanted(address, ref, path)


def _ref(given: Mapping[str, Any]) -> Ref:
    if len(given) > 1:
        raise Wrong("ref names more than one thing", "keep one of branch, tag and commit")
    if "semver" in given:
        raise Unsupported("ref.semver is not supported yet", advice="Name a branch, a tag or a commit.")
    if "branch" in given:
        return Ref("branch", parse_ref_name(given["branch"]))
    if "tag" in given:
        return Ref("tag", parse_ref_name(given["tag"]))
    if "commit" in given:
        return Ref("commit", parse_commit(given["commit"]))
    return Ref()
