"""The spec of a Source: where a node's desired state comes from.

Rules of this file: what becomes an argument of git is a type of its own (`git.py`), checked when it is written.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from reconciler.model.kinds.base import SecretReference, Spec
from reconciler.model.kinds.git import GitCommit, GitRefName, GitUrl
from reconciler.model.kinds.quantities import parse_duration, read_by, text_of
from reconciler.model.kinds.texts import AbsolutePath, matching
from reconciler.model.problems import Problem, Wrong, mapping_at

_VALUE_NAME: Final = re.compile(r"[^{}\n]{1,253}")


def parse_inside(value: object) -> str:
    """A folder inside a source, without `..`, normalised; `.` is the whole of it: ""."""
    text = text_of(value)
    whole = posixpath.normpath(text) if text else "."
    if whole.startswith(("/", "../")) or whole == ".." or len(text) > 4095 or "\0" in text or "\n" in text:
        raise Wrong("is not a path inside the source", "write a folder's path from its top, such as nodes/edge")
    return "" if whole == "." else whole


def parse_interval(value: object) -> float:
    """A duration of a second or more, in seconds."""
    if (seconds := parse_duration(value)) < 1:
        raise Wrong("is too short", "write 1s or more")
    return seconds


_READ_VALUE: Final = matching(_VALUE_NAME, "is not a value's name", "write a name without { and }")

InsidePath = Annotated[str, *read_by(parse_inside, {"pattern": "^[^/]"})]
Interval = Annotated[float, *read_by(parse_interval, {"examples": ["60s", "5m"]})]
ValueName = Annotated[str, *read_by(_READ_VALUE, {"pattern": "^[^{}]+$"})]


class GitRef(Spec):
    """What of a repository: one of the three, or none of them: the branch that the repository itself names."""

    branch: GitRefName | None = None
    tag: GitRefName | None = None
    commit: GitCommit | None = None


class GitSource(Spec):
    """A git repository. `auth`: a Secret with `username` and `password`, or with `identity` (an SSH key)."""

    url: GitUrl
    ref: GitRef = GitRef.model_construct()
    auth: SecretReference | None = None


class SourceSpec(Spec):
    """Where desired state comes from: `git` or `folder`, from `path` in it down. Durations in seconds.

    `prune`: what is not in it any more is removed. `allow_mass_prune` and `allow_rewind` lift the two guards.
    """

    git: GitSource | None = None
    folder: AbsolutePath | None = None
    path: InsidePath = ""
    interval: Interval = 60.0
    prune: bool = True
    suspend: bool = False
    values: dict[ValueName, str] = Field({})
    allow_rewind: bool = Field(False, alias="allowRewind")
    allow_mass_prune: bool = Field(False, alias="allowMassPrune")


def source_conflicts(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """What no field shows alone: exactly one origin, at most one ref."""
    given = [name for name in ("git", "folder", "bundle") if name in spec]
    if not given:
        yield Problem((), "names no origin", "write git: {url: …} or folder: /PATH")
    for extra in given[1:]:
        yield Problem((extra,), f"is given beside {given[0]}", "keep one of them", at_key=True)
    ref = mapping_at(mapping_at(spec, "git"), "ref")
    refs = [name for name in ("commit", "tag", "branch") if name in ref]
    for extra in refs[1:]:
        yield Problem(("git", "ref", extra), f"is given beside {refs[0]}", "keep one of them", at_key=True)
