"""What an apply would do, before it does it: one row an object, with the changed fields, the cause and the cost.

Rules of this file: nothing secret is ever in a row; a row says what becomes of the *workload* (rule 16), so a container
whose Sandbox, Image or Secret changes has a row too, though nobody wrote its manifest anew.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from typing import Any, Final

from core.digest import hash8
from core.transfer import reference
from core.values import dataclass
from reconciler.decide.attempts import IN_PLACE, Memory
from reconciler.decide.edits import Edit, edits_between
from reconciler.decide.references import image_key, references, sandbox_key, secrets_of
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object, Origin

WHICH_BYTES: Final = ("ref", "archive", "platform", "snapshotter")
"""The fields of an Image that decide what its containers run."""


class Op(StrEnum):
    """What becomes of an object."""

    CREATE = "create"
    CHANGE = "change"
    REPLACE = "replace"
    REMOVE = "remove"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a plan. `fetch`: bytes to fetch, None where only the registry knows; `restarts`: workloads ended."""

    key: Key
    op: Op
    cause: str = ""
    edits: tuple[Edit, ...] = ()
    fetch: int | None = 0
    restarts: int = 0
    origin: Origin | None = field(default=None, compare=False)


def preview(wanted: Sequence[Object], stored: Mapping[Key, Object], removed: Collection[Key] = ()) -> tuple[Row, ...]:
    """The rows of a plan: `wanted` as manifests have it, `stored` all that the store holds, `removed` what is pruned.

    Ordered by kind and name, what is removed last.
    """
    look = _Look({obj.key: obj for obj in wanted}, stored, frozenset(removed))
    rows = [look.row(obj) for obj in wanted]
    rows += look.consequences()
    return (*sorted(rows, key=_place), *sorted(look.removals(), key=_place))


def plan_id(wanted: Sequence[Object], stored: Mapping[Key, Object], removed: Collection[Key] = ()) -> str:
    """Eight hex digits over all that decides what an apply does: the specs given, and what they were compared with.

    What the engine writes beside a spec (attempts, exits, status) does not change it.
    """
    keys = sorted({obj.key for obj in wanted} | set(removed))
    given = [[*obj.key, obj.spec, obj.labels, obj.annotations, obj.manager] for obj in sorted(wanted, key=_place)]
    found = [
        [*key, obj.uid, obj.generation, obj.annotations, obj.manager, obj.deleted is not None]
        for key in keys
        if (obj := stored.get(key)) is not None
    ]
    return hash8(json.dumps([given, found, sorted(removed)], sort_keys=True, default=dict))


def _place(thing: Row | Object) -> tuple[int, str]:
    return list(Kind).index(thing.key.kind), thing.key.name


@dataclass(frozen=True, slots=True)
class _Look:
    """Everything that one preview looks at."""

    wanted: Mapping[Key, Object]
    stored: Mapping[Key, Object]
    removed: frozenset[Key]

    def row(self, obj: Object) -> Row:
        """The row of an object of the manifests."""
        old = self.stored.get(obj.key)
        if old is None or old.deleted is not None:
            cause = "" if old is None else "being deleted: made anew when it is gone"
            return Row(obj.key, Op.CREATE, cause, (), self._fetch(obj), 0, obj.origin)
        edits = edits_between(old, obj)
        cause = _fields_of(edits)
        op = self._op(obj, old, edits)
        if op is not Op.REPLACE and (because := self._moved_under(old, obj)):
            op, cause = Op.REPLACE, f"{cause}; {because}" if cause else because
        fetch = self._fetch(obj) if edits else 0
        return Row(obj.key, op, cause, edits, fetch, _restarts(old) if op is Op.REPLACE else 0, obj.origin)

    def _op(self, obj: Object, old: Object, edits: Sequence[Edit]) -> Op:
        if not edits:
            return Op.NOTHING
        changed = {name for name in (*obj.spec, *old.spec) if obj.spec.get(name) != old.spec.get(name)}
        if obj.kind is Kind.SANDBOX and changed and old.record.get("id"):
            return Op.REPLACE
        if obj.kind is Kind.CONTAINER and changed - set(IN_PLACE) and Memory.of(old.record).current is not None:
            return Op.REPLACE
        return Op.CHANGE

    def consequences(self) -> Iterator[Row]:
        """Containers that nobody changed, but what they run in, from or with."""
        for key, obj in self.stored.items():
            untouched = key not in self.wanted and key not in self.removed and obj.deleted is None
            if untouched and (because := self._moved_under(obj, obj)):
                yield Row(key, Op.REPLACE, because, (), 0, _restarts(obj), obj.origin)

    def _moved_under(self, old: Object, new: Object) -> str:
        """Why a container that was started once is replaced, though its own spec would not have it so."""
        if new.kind is not Kind.CONTAINER or (memory := Memory.of(old.record)).current is None:
            return ""
        needs = [image_key(new.spec), *(Key(Kind.SECRET, name) for name in sorted(set(secrets_of(new.spec))))]
        if memory.current_ended() is None:
            needs.append(sandbox_key(new.name, new.spec))
        moved = [key for key in needs if self._moves(key)]
        return ", ".join(map(str, moved)) + " changed" if moved else ""

    def _moves(self, key: Key) -> bool:
        """Whether the change of `key` reaches those who use it."""
        old, new = self.stored.get(key), self.wanted.get(key)
        if old is None or new is None or old.deleted is not None:
            return False
        match key.kind:
            case Kind.IMAGE:
                return any(old.spec.get(name) != new.spec.get(name) for name in WHICH_BYTES)
            case Kind.SECRET:
                return _contents(old.spec) != _contents(new.spec)
            case _:
                return old.spec != new.spec

    def removals(self) -> Iterator[Row]:
        """What is pruned, and what goes with it because only that owned it."""
        going = {key for key in self.removed if key in self.stored}
        users = self._users_that_stay(going)
        for key in sorted(going):
            needed = f"still used by {', '.join(map(str, users[key]))}: goes after that" if users.get(key) else ""
            yield Row(key, Op.REMOVE, needed, origin=self.stored[key].origin)
        while owned := self._owned_only_by(going):
            for key, obj in sorted(owned.items()):
                if key.kind is not Kind.SNAPSHOT:
                    yield Row(key, Op.REMOVE, f"goes with {', '.join(sorted(map(str, obj.owners)))}")
            going |= owned.keys()

    def _owned_only_by(self, going: Collection[Key]) -> dict[Key, Object]:
        return {
            key: obj
            for key, obj in self.stored.items()
            if key not in going and key not in self.wanted and obj.owners and obj.owners <= set(going)
        }

    def _users_that_stay(self, going: Collection[Key]) -> dict[Key, list[Key]]:
        found: dict[Key, list[Key]] = {}
        if going:
            for key, obj in sorted({**self.stored, **self.wanted}.items()):
                for needed in references(obj) if key not in going and obj.deleted is None else ():
                    found.setdefault(needed, []).append(key)
        return found

    def _fetch(self, obj: Object) -> int | None:
        """Bytes to fetch for it: 0 when they are held or none are needed, else unknown."""
        if obj.kind is Kind.CONTAINER:
            image = image_key(obj.spec)
            named = image in self.wanted or obj.spec["image"] == image.name
            return 0 if named or _is_held(self.stored.get(image)) else None
        if obj.kind is not Kind.IMAGE or obj.spec.get("pullPolicy") == "Never" or "archive" in obj.spec:
            return 0
        wish = (_normal(obj.spec["ref"]), obj.spec.get("platform"))
        held = (one for key, one in self.stored.items() if key.kind is Kind.IMAGE and _is_held(one))
        return 0 if any((_normal(one.spec["ref"]), one.spec.get("platform")) == wish for one in held) else None


def _fields_of(edits: Sequence[Edit]) -> str:
    """`spec.image, spec.env changed`."""
    fields = list(dict.fromkeys(edit.field for edit in edits))
    more = f" and {len(fields) - 3} more" if len(fields) > 3 else ""
    return f"{', '.join(fields[:3])}{more} changed" if fields else ""


def _restarts(old: Object) -> int:
    """1 when replacing the object ends a workload that goes on now."""
    if old.kind is not Kind.CONTAINER:
        return 0
    memory = Memory.of(old.record)
    return int(memory.current is not None and memory.current_ended() is None)


def _is_held(image: Object | None) -> bool:
    return image is not None and bool(image.record.get("chain"))


def _normal(ref: str) -> str:
    return str(reference.parse(ref))


def _contents(spec: Mapping[str, Any]) -> dict[str, bytes]:
    decoded = {key: base64.b64decode("".join(value.split())) for key, value in spec.get("data", {}).items()}
    return decoded | {key: value.encode() for key, value in spec.get("stringData", {}).items()}
