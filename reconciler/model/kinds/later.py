"""What KINDS of this program will know and does not yet: refused by name, never taken for a typing error.

Rules of this file: tables only. Paths are those below `spec`, with `[]` for any place in a list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from reconciler.model.identity import Kind

LATER_KINDS: Final = ("Rollout",)
MADE_BY_THE_AGENT: Final = ("Snapshot", "Node", "Revision", "Event")

LATER_FIELDS: Final[Mapping[Kind, frozenset[str]]] = {
    Kind.IMAGE: frozenset({"update.range", "verify"}),
    Kind.SANDBOX: frozenset(),
    Kind.CONTAINER: frozenset({"mounts[].image"}),
    Kind.VOLUME: frozenset({"size"}),
    Kind.SECRET: frozenset({"encrypted"}),
    Kind.SOURCE: frozenset({"bundle", "git.ref.semver", "git.sparse", "verify", "rollback"}),
}


def _among(*later: object) -> Callable[[object], bool]:
    return lambda value: any(value is word or (isinstance(value, str) and value == word) for word in later)


LATER_VALUES: Final[Mapping[Kind, Mapping[str, Callable[[object], bool]]]] = {
    Kind.IMAGE: {"update.policy": _among("SemVer")},
    Kind.SANDBOX: {},
    Kind.CONTAINER: {},
    Kind.VOLUME: {},
    Kind.SECRET: {},
    Kind.SOURCE: {},
}
"""Asked only of values that are not valid now."""
