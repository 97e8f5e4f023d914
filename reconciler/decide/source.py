"""What to do next for a Source: facts in, a plan out.

The story of a revision: *fetch* (when it is due) → *load* (read and check all of it; nothing is changed) → *objections*
(it is invalid, refers to nothing, rewinds, removes too much, wants what is another's: nothing is changed, the last good
one stays) → *apply* (one commit: what it wants, what it does not want any more, and that it is in force).

Rules of this file: what is applied is told from what is wanted by a pair (`Want`): the revision, and a hash of all else
that decides what it comes to. A source that cannot be reached holds nothing else up: what was fetched is still applied,
and what was lost put back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from core.clock import timestamp
from core.digest import hash8
from reconciler.decide.facts import Now, SourceFacts, Want
from reconciler.decide.summary import Detail
from reconciler.model.actions import (
    ApplyRevision,
    AskLocal,
    Await,
    FetchSource,
    ForgetSource,
    LetGoOfMembers,
    LoadRevision,
    Plan,
    Release,
    Remember,
)
from reconciler.model.identity import Key, spec_hash
from reconciler.model.kinds.source import SourceSpec
from reconciler.model.objects import Object

SUSPENDED: Final = "suspended"
ROLLBACK: Final = "rollback/"
MOST_FAULTS: Final = 20
MOST_FAILED: Final = 10
_MOST_NAMES: Final = 10
_JITTER: Final = 0.1
"""Of the interval: so much later a fetch may be, so that nodes do not come all at once."""
_POLL: Final = 5.0


_ASKS: Final = ("git", "folder", "path")


def asks_for(obj: Object) -> str:
    """A hash of which revisions a Source's spec asks for, and of where in them."""
    return spec_hash({name: obj.spec[name] for name in _ASKS if name in obj.spec})


def plan_source(facts: SourceFacts, spec: SourceSpec, now: Now) -> Plan:
    """Fetch, load, apply; or say what stands in the way."""
    if facts.obj.deleted is not None:
        return _teardown(facts, spec)
    if not facts.fetches:
        return Plan()
    if (left := suspended(facts, spec, now)) is not None:
        return Plan(cause=SUSPENDED, again=left or None)
    due = fetch_due(facts, spec, now)
    fetch = (_fetch(facts),) if due <= 0 else ()
    if fetch and not _failing(facts, now):
        return Plan(fetch, cause="due")
    rest = _after_fetch(facts, spec, now)
    return Plan((*rest.actions, *fetch), rest.waits, rest.cause, _sooner(rest.again, due if due > 0 else None))


def suspended(facts: SourceFacts, spec: SourceSpec, now: Now) -> float | None:
    """Seconds for which the Source is left alone (0: for ever); None: it is not suspended."""
    if spec.suspend:
        return 0.0
    return _for_how_long(facts.obj.local.get("suspend"), now)


def _for_how_long(asked: Mapping[str, Any] | None, now: Now) -> float | None:
    if not asked:
        return None
    if asked.get("until") is None:
        return 0.0
    left = float(asked["until"]) - now.wall
    return left if left > 0 else None


def fetch_due(facts: SourceFacts, spec: SourceSpec, now: Now) -> float:
    """Seconds until the next fetch; 0 or less: now."""
    seen, known = facts.fetched, facts.obj.record.get("fetched")
    if seen is None or known is None or known.get("asksFor") != facts.asks_for or facts.moved:
        return 0.0
    if sync_asked(facts) not in ("", seen.sync):
        return 0.0
    late = int(hash8(f"{facts.obj.uid}{seen.wall}"), 16) / 0xFFFFFFFF * _JITTER
    return seen.at + spec.interval * (1 + late) - now.monotonic


def sync_asked(facts: SourceFacts) -> str:
    """The id of the newest request to fetch at once; "": there was none."""
    return str(facts.obj.local.get("sync", {}).get("id", ""))


def _fetch(facts: SourceFacts) -> FetchSource:
    return FetchSource(facts.obj.key, facts.asks_for, sync_asked(facts), facts.moves)


def _failing(facts: SourceFacts, now: Now) -> bool:
    """Whether just this fetch has failed and is in its back-off."""
    if facts.fault is not None and facts.fault.action != repr(_fetch(facts)):
        return False
    return facts.fault is not None and facts.fault.phase == FetchSource.phase and now.monotonic < facts.fault.until


def _sooner(one: float | None, other: float | None) -> float | None:
    known = [seconds for seconds in (one, other) if seconds is not None]
    return min(known) if known else None


def fetched_revision(facts: SourceFacts) -> str:
    """The revision that the source was at when it was last read; "": it never was."""
    return str(facts.obj.record.get("fetched", {}).get("revision", ""))


def rollback_of(facts: SourceFacts) -> Mapping[str, Any] | None:
    """The rollback in force: it holds until the source moves on from where it was when that was asked for."""
    asked = facts.obj.local.get("rollback")
    return asked if asked and asked.get("over") == fetched_revision(facts) else None


def wanted(facts: SourceFacts) -> Want:
    """What is to be in force."""
    if (asked := rollback_of(facts)) is not None:
        return Want(str(asked["revision"]), f"{ROLLBACK}{asked['number']}")
    return Want(fetched_revision(facts), facts.with_)


def in_force(facts: SourceFacts) -> Want | None:
    """What was applied last."""
    applied = facts.obj.record.get("applied")
    return None if applied is None else Want(applied["revision"], applied["with"])


def inventory(facts: SourceFacts) -> frozenset[Key]:
    """The objects that what is in force consists of."""
    return frozenset(Key.parse(text) for text in facts.obj.record.get("inventory", ()))


def _after_fetch(facts: SourceFacts, spec: SourceSpec, now: Now) -> Plan:
    key, want = facts.obj.key, wanted(facts)
    over = "rollback" in facts.obj.local and rollback_of(facts) is None and fetched_revision(facts)
    if over:
        return Plan((AskLocal(key, {"rollback": None}),), cause="the source has moved on")
    if not want.revision or facts.obj.record["fetched"]["asksFor"] != facts.asks_for:
        return Plan()
    lost = inventory(facts) - facts.members.keys()
    if want == in_force(facts) and not lost:
        return Plan()
    held = _for_how_long(facts.hold, now)
    if held is not None and want != in_force(facts):
        reason = facts.hold.get("reason")
        message = f"no new revision is applied {_until(facts.hold)}{f': {reason}' if reason else ''}"
        return Plan((), (Await("Held", message, held or None),))
    if rewound := _rewound(facts, spec, want):
        return _refused(facts, want, now, rewound)
    if facts.loaded is None or facts.loaded.want != want:
        if facts.loaded is None and not facts.tree_held and not want.with_.startswith(ROLLBACK):
            return Plan((_fetch(facts),), cause="to be read anew")
        return Plan((LoadRevision(key, want.revision, want.with_),))
    if objections := tuple(_objections(facts, spec, now)):
        return _refused(facts, want, now, *objections)
    return Plan((ApplyRevision(key, want.revision, want.with_, removed(facts, spec)),))


def _until(asked: Mapping[str, Any]) -> str:
    return f"until {timestamp(float(asked['until']))}" if asked.get("until") is not None else "until released"


def _rewound(facts: SourceFacts, spec: SourceSpec, want: Want) -> Await | None:
    """That the revision does not descend from what is in force, although the same place is asked for."""
    fetched, before = facts.obj.record.get("fetched", {}), in_force(facts)
    if before is None or want.with_.startswith(ROLLBACK) or spec.allow_rewind:
        return None
    if fetched.get("from") != before.revision or fetched.get("descends", True):
        return None
    message = f"{short(want.revision)} does not descend from {short(before.revision)}, which stays in force"
    hint = "If the history was rewritten on purpose, set allowRewind: true in the Source."
    return Await("Rewound", message, stalled=True, hint=hint)


def removed(facts: SourceFacts, spec: SourceSpec) -> frozenset[Key]:
    """What the loaded revision does not want any more."""
    assert facts.loaded is not None
    going = (key for key, member in facts.members.items() if not member.going)
    return frozenset(going) - facts.loaded.keys if spec.prune else frozenset()


def _objections(facts: SourceFacts, spec: SourceSpec, now: Now) -> Iterator[Await]:
    loaded = facts.loaded
    assert loaded is not None
    if loaded.faults:
        more = f" (and {loaded.count - 1} more)" if loaded.count > 1 else ""
        hint = "Correct it in the source; nothing was changed, and the last good revision stays in force."
        yield Await("Invalid", f"{short(loaded.want.revision)}: {loaded.faults[0]}{more}", stalled=True, hint=hint)
        return
    if theirs := {key: facts.foreign[key] for key in sorted(loaded.keys & facts.foreign.keys())}:
        names = _listed(f"{key} belongs to {manager}" for key, manager in theirs.items())
        hint = "Remove it there, or in the source: an object has one manager."
        yield Await("OtherManager", names, stalled=True, hint=hint)
    yield from _missing(facts, removed(facts, spec), now)
    yield from _mass_prune(facts, spec)
    if leaving := sorted(loaded.keys & facts.going):
        yield Await("BeingDeleted", f"{_listed(map(str, leaving))} still being deleted", _POLL)


def _missing(facts: SourceFacts, pruned: frozenset[Key], now: Now) -> Iterator[Await]:
    assert facts.loaded is not None
    there = facts.present - pruned
    missing = [f"{key} ({place})" for key, place in facts.loaded.needs if key not in there]
    if missing:
        left = facts.loaded.at + facts.wait_for - now.monotonic
        hint = "Add what is missing to the source, or apply it; it is looked for again."
        soon = min(_POLL, left) if left > 0 else _POLL
        yield Await("WaitingFor", f"there is no {_listed(missing)}", soon, stalled=left <= 0, hint=hint)


def _mass_prune(facts: SourceFacts, spec: SourceSpec) -> Iterator[Await]:
    """That a fat finger may have been at work. What a person at the node rolls back to is meant."""
    assert facts.loaded is not None
    gone = removed(facts, spec)
    if not gone or spec.allow_mass_prune or facts.loaded.want.with_.startswith(ROLLBACK):
        return
    weight = sum(facts.members[key].weight for key in gone)
    total = sum(member.weight for member in facts.members.values() if not member.going)
    emptied = not facts.loaded.keys
    if emptied or (weight > 1 and weight * 100 > facts.prune_limit * total):
        what = "is empty and " if emptied else ""
        names = _listed(map(str, sorted(gone)))
        message = f"{short(facts.loaded.want.revision)} {what}would remove {weight} of {total} objects: {names}"
        hint = "If that is meant, set allowMassPrune: true in the Source."
        yield Await("PruneRefused", message, stalled=True, hint=hint)


def _listed(names: Iterator[str] | map[str] | list[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _MOST_NAMES} more" if len(every) > _MOST_NAMES else ""
    return ", ".join(every[:_MOST_NAMES]) + more


def _refused(facts: SourceFacts, want: Want, now: Now, *waits: Await) -> Plan:
    """Wait; and remember, once, that the revision was refused."""
    stalled = next((wait for wait in waits if wait.stalled), None)
    failed = list(facts.obj.record.get("failed", ()))
    same = bool(failed) and failed[-1] == {**failed[-1], **_entry(want, stalled)} if stalled is not None else True
    if stalled is None or same:
        return Plan((), waits)
    entry = {**_entry(want, stalled), "message": stalled.message, "at": now.wall}
    kept = [*failed, entry][-MOST_FAILED:]
    remember = Remember(facts.obj.key, {"failed": kept}, stalled.reason, stalled.message, True)
    return Plan((remember,), waits)


def _entry(want: Want, wait: Await) -> dict[str, str]:
    return {"revision": want.revision, "with": want.with_, "reason": wait.reason}


def _teardown(facts: SourceFacts, spec: SourceSpec) -> Plan:
    key = facts.obj.key
    if any(not member.going for member in facts.members.values()):
        return Plan((LetGoOfMembers(key, keep=not spec.prune),), cause="deleted")
    if facts.members:
        left = _listed(map(str, sorted(facts.members)))
        return Plan((), (Await("Removing", f"its objects are being removed: {left}", _POLL),))
    return Plan((ForgetSource(key), Release(key)), cause="deleted")


def short(revision: str) -> str:
    """A revision as people read it: 12 of its digits."""
    scheme, colon, rest = revision.rpartition(":")
    return f"{scheme}{colon}{rest[:12]}"


def source_detail(facts: SourceFacts, plan: Plan) -> Detail:
    """Ready: what is wanted is in force. Whether its objects are ready is the condition `Healthy`, and counted."""
    fields = _fields(facts, plan)
    applied = in_force(facts)
    live = {key: member for key, member in facts.members.items() if not member.going}
    ready = sum(member.ready for member in live.values())
    healthy = (("Healthy", ready == len(live), "ObjectsReady" if ready == len(live) else "ObjectsNotReady",
                f"{ready} of {len(live)} objects are ready"),)  # fmt: skip
    if not facts.fetches:
        return Detail(None, "WaitsForAgent", "waits for an agent: it alone fetches sources", fields)
    if plan.cause == SUSPENDED:
        asked = facts.obj.local.get("suspend") or {}
        words = [_until(asked) if asked else "in its spec", *([asked["reason"]] if asked.get("reason") else [])]
        return Detail(applied is not None, "Suspended", f"suspended {': '.join(words)}", fields, healthy)
    if applied is None:
        return Detail(False, "NotApplied", "no revision was applied yet", fields)
    whole = applied == wanted(facts) and inventory(facts) <= facts.members.keys()
    message = f"{short(applied.revision)}, {ready} of {len(live)} objects ready"
    back = rollback_of(facts)
    reason = "RolledBack" if back is not None and whole else "Applied" if whole else "NotApplied"
    return Detail(whole, reason, message, fields, healthy)


def _fields(facts: SourceFacts, plan: Plan) -> dict[str, Any]:
    record, applied = facts.obj.record, in_force(facts)
    live = sorted(key for key, member in facts.members.items() if not member.going)
    waiting = [str(key) for key in live if not facts.members[key].ready]
    fields: dict[str, Any] = {
        "revision": fetched_revision(facts),
        "observedRevision": applied.revision if applied is not None else "",
        "lastGoodRevision": applied.revision if applied is not None else "",
        "failedRevisions": list(dict.fromkeys(one["revision"] for one in record.get("failed", ()))),
        "inventory": list(record.get("inventory", ())),
        "objects": {"total": len(live), "ready": len(live) - len(waiting), "notReady": waiting[:MOST_FAULTS]},
    }
    when = timestamp(facts.fetched.wall) if facts.fetched is not None else facts.obj.status.get("lastFetchAt")
    fields |= {"lastFetchAt": when} if when else {}
    fields |= {"observedSync": sync} if (sync := sync_asked(facts)) else {}
    if (back := rollback_of(facts)) is not None:
        fields["rolledBackTo"] = back["name"]
    if facts.loaded is not None and facts.loaded.faults and facts.loaded.want == wanted(facts):
        fields["faults"] = list(facts.loaded.faults)
        fields["faultCount"] = facts.loaded.count
    if refusal := next((wait for wait in plan.waits if wait.stalled and wait.reason == "Invalid"), None):
        error = {"phase": "loading", "object": str(facts.obj.key), "category": "invalid"}
        fields["lastError"] = {**error, "message": refusal.message, "hint": refusal.hint}
    return fields
