"""What a write makes of what is there: the same pure decisions for every backend."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from reconciler.model.identity import Key
from reconciler.model.objects import Object
from reconciler.store.encoding import decode, encode, encode_json
from reconciler.store.port import Put, Write, WriteConflict


@dataclass(frozen=True, slots=True)
class Step:
    """One write of a commit: what was there, what will be, with its body's text, and the version of the change."""

    key: Key
    before: Object | None
    after: Object | None
    body: str
    version: int
    changed: bool


def key_of(write: Write) -> Key:
    """The key of the object that `write` is about."""
    return write.object.key if isinstance(write, Put) else write.key


def plan(writes: Sequence[Write], current: Sequence[Object | None], *, version: int, now: float) -> Sequence[Step]:
    """What `writes` make of `current`, the objects of their keys, in a store at `version`.

    Raises `WriteConflict`; `ValueError` or `TypeError` for two writes to one key and for what is not JSON.
    """
    _check(writes, current)
    steps: list[Step] = []
    for write, before in zip(writes, current, strict=True):
        if isinstance(write, Put):
            step = _put(before, write.object, version + 1, now)
        else:
            step = Step(write.key, before, None, "", version + 1, before is not None)
        version += step.changed
        steps.append(step)
    return steps


def _check(writes: Sequence[Write], current: Sequence[Object | None]) -> None:
    keys = [key_of(write) for write in writes]
    if len(set(keys)) != len(keys):
        raise ValueError("two writes to one key in one commit")
    for write, key, before in zip(writes, keys, current, strict=True):
        found = 0 if before is None else before.version
        if found != write.expect:
            raise WriteConflict(key, write.expect, found)


def _put(before: Object | None, wanted: Object, version: int, now: float) -> Step:
    if before is None:
        merged = replace(wanted, uid=os.urandom(8).hex(), version=version, generation=1, created=now)
        status = encode_json(merged.status)
    else:
        merged = replace(
            wanted,
            uid=before.uid,
            version=before.version,
            generation=before.generation,
            created=before.created,
            deleted=wanted.deleted if before.deleted is None else before.deleted,
        )
        status = None
    body = encode(merged)
    # Read back what was written, so that every reader, this one too, sees the same value.
    after = decode((wanted.kind.value, wanted.name, merged.uid, merged.version, merged.generation, body, status))
    if before is None:
        return Step(wanted.key, None, after, body, version, changed=True)
    if (after := replace(after, status=before.status)) == before:
        return Step(wanted.key, before, before, body, before.version, changed=False)
    moved = after.spec != before.spec or after.labels != before.labels
    after = replace(after, version=version, generation=before.generation + moved)
    return Step(wanted.key, before, after, body, version, changed=True)
