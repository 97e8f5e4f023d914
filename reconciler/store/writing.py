"""What a write makes of what is there: the same pure decisions for every backend."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import NamedTuple

from reconciler.model.identity import Key
from reconciler.model.objects import Object
from reconciler.store.encoding import Beside, assemble, encode, encode_json
from reconciler.store.port import Put, Write, WriteConflict


class Step(NamedTuple):
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
    created, deleted = now, wanted.deleted
    if before is not None:
        created, deleted = before.created, wanted.deleted if before.deleted is None else before.deleted
    # Read back what is to be written, so that every reader, this one too, sees the same value.
    body = encode(wanted, created=created, deleted=deleted)
    plain = json.loads(body)
    if before is None:
        made = Beside(wanted.key, os.urandom(8).hex(), version, 1)
        after = assemble(made, plain, json.loads(encode_json(wanted.status)))
        return Step(wanted.key, None, after, body, version, changed=True)
    moved = plain.get("spec", {}) != before.spec or plain.get("labels", {}) != before.labels
    after = assemble(Beside(before.key, before.uid, version, before.generation + moved), plain, before.status)
    if _content(after) == _content(before):
        return Step(wanted.key, before, before, body, version, changed=False)
    return Step(wanted.key, before, after, body, version, changed=True)


def _content(obj: Object) -> tuple[object, ...]:
    """All that a put may change."""
    rest = obj.record, obj.local, obj.manager, obj.finalizers, obj.owners, obj.deleted, obj.origin
    return obj.spec, obj.labels, obj.annotations, *rest
