"""What `apply` and `diff` begin with: manifests read and checked, compared with the store, as one value.

Rules of this file: all faults of all files are said at once, each with its place, before anything is changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from core.errors import Invalid
from core.values import dataclass
from reconciler.cli.terminal import printable, tell
from reconciler.cli.texts import counted
from reconciler.decide.changes import Op, Row, plan_id, preview
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object
from reconciler.store.applied import set_manager
from reconciler.store.functions import HAND, Manager, OtherManager
from reconciler.store.port import ObjectStore

if TYPE_CHECKING:
    from reconciler.model.config import Config
    from reconciler.sources.loading import Loaded


@dataclass(frozen=True, slots=True)
class Request:
    """What the options of `apply` and `diff` ask for; `set_name` "": by hand."""

    paths: Sequence[str]
    set_name: str = ""
    prune: bool = False
    take_over: bool = False
    runtimes: Sequence[str] = ()
    """Those that the configuration adds."""
    allow_privileged: bool = False
    """Whether the configuration allows a container to be privileged."""

    @property
    def manager(self) -> Manager:
        """Who applies; raises `Invalid` for a set that cannot be named so, and for `prune` without a set."""
        if self.prune and not self.set_name:
            raise Invalid("--prune needs --set NAME", advice="It removes the members of that set that are not given.")
        return Manager(set_manager(self.set_name) if self.set_name else HAND, self.take_over)


def requested(config: Config, paths: Sequence[str], set_name: str, *, prune: bool, take_over: bool) -> Request:
    """What is asked for on a node with this configuration."""
    allowed = config.policy.allow_privileged
    return Request(paths, set_name, prune, take_over, tuple(config.runtimes), allowed)


@dataclass(frozen=True, slots=True)
class Proposal:
    """What would be done: the objects wanted, those to be removed, the rows of the plan and its id."""

    wanted: tuple[Object, ...]
    removed: tuple[Key, ...]
    rows: tuple[Row, ...]
    id: str

    def count(self, op: Op) -> int:
        """How many rows do `op`."""
        return sum(row.op is op for row in self.rows)

    @property
    def changes(self) -> list[Row]:
        """The rows that do something."""
        return [row for row in self.rows if row.op is not Op.NOTHING]


def propose(request: Request, store: ObjectStore | None) -> Proposal:
    """Read, check and compare. Raises `Invalid` when something is wrong with the manifests, after saying what."""
    manager = request.manager
    stored = {obj.key: obj for obj in store.list()} if store is not None else {}
    loaded = read(request, stored)
    wanted = tuple(
        Object(
            one.key,
            spec=one.spec,
            labels=one.labels,
            annotations=one.annotations,
            manager=manager.name,
            origin=one.origin,
        )
        for one in loaded.manifests
    )
    removed = _members_not_given(stored, loaded.keys, manager.name) if request.prune else ()
    others = [found for obj in wanted if (found := stored.get(obj.key)) and found.manager != manager.name]
    if others and not request.take_over:
        raise OtherManager(others)
    return Proposal(wanted, removed, preview(wanted, stored, removed), plan_id(wanted, stored, removed))


def read(request: Request, stored: Mapping[Key, Object], *, references: bool = True) -> Loaded:
    """The manifests, when nothing at all is wrong with them; raises `Invalid` after saying every fault.

    `references`: that they refer to nothing that is not there is looked at too.
    """
    from reconciler.sources.loading import load
    from reconciler.sources.references import check_privileged, check_references, check_runtimes
    from reconciler.sources.substitution import Variables

    name, labels = _this_node(stored)
    loaded = load(request.paths, Variables(name, labels))
    pruned = set(_members_not_given(stored, loaded.keys, request.manager.name)) if request.prune else set()

    def known(key: Key) -> bool:
        return key in stored and key not in pruned and stored[key].deleted is None

    faults = sorted({*loaded.faults, *(check_references(loaded, known) if references else ())})
    faults += check_runtimes(loaded, _runtimes(request, stored)) if references else ()
    faults += check_privileged(loaded) if references and not request.allow_privileged else ()
    if faults:
        for fault in faults:
            tell(printable(str(fault)))
        files = counted(len({fault.file for fault in faults}), "file")
        raise Invalid(f"{counted(len(faults), 'fault')} in {files}; nothing was changed")
    return loaded


def _this_node(stored: Mapping[Key, Object]) -> tuple[str, Mapping[str, str]]:
    """The name and labels that manifests may name: the Node object's, or before there is one the host's name."""
    found = next((obj for key, obj in stored.items() if key.kind is Kind.NODE), None)
    return (found.name, found.labels) if found is not None else (os.uname().nodename, {})


def _runtimes(request: Request, stored: Mapping[Key, Object]) -> frozenset[str]:
    """What may stand under `runtime`: what the node's engine said that it has, and what its next one will have."""
    told = [obj.status.get("runtimes", {}) for key, obj in stored.items() if key.kind is Kind.NODE]
    has = frozenset(name for table in told for name in table)
    return has | frozenset(request.runtimes) if has else has


def _members_not_given(stored: Mapping[Key, Object], given: frozenset[Key], manager: str) -> tuple[Key, ...]:
    return tuple(
        key for key, obj in stored.items() if obj.manager == manager and key not in given and obj.deleted is None
    )
