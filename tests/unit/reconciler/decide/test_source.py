"""What is next for a Source, decided from facts alone."""

from dataclasses import replace
from typing import Any

import pytest

from core.errors import Category, Retry
from reconciler.decide.facts import FetchSeen, LoadSeen, Member, Now, SourceFacts, Want
from reconciler.decide.outcomes import performable
from reconciler.decide.source import fetch_due, plan_source, source_detail
from reconciler.model import actions as do
from reconciler.model.identity import Key, Kind
from reconciler.model.kinds.source import SourceSpec
from reconciler.model.objects import Object
from reconciler.model.outcome import Fault

EDGE = Key(Kind.SOURCE, "edge")
A, B, C, D = (Key(Kind.VOLUME, name) for name in "abcd")
NOW = Now(1000.0, 500.0)
APPLIED = {"revision": "r1", "with": "w", "asksFor": "asks", "name": "edge-1"}
FETCHED = {"revision": "r1", "asksFor": "asks", "from": "r1", "descends": True}


def facts(record: dict[str, Any] | None = None, **given: Any) -> SourceFacts:
    """A Source with revision r1 in force, fetched a moment ago."""
    whole = {"applied": APPLIED, "fetched": FETCHED, "inventory": ["volume/a", "volume/b"], **(record or {})}
    record = {name: value for name, value in whole.items() if value is not None}
    obj = Object(EDGE, uid="u", spec={"folder": "/x"}, record=record, local=given.pop("local", {}))
    members = {key: Member(True) for key in (A, B)}
    fields: dict[str, Any] = {"with_": "w", "asks_for": "asks", "fetched": FetchSeen(495.0, 995.0), "members": members}
    return SourceFacts(obj, **{**fields, **given})


def spec(**given: Any) -> SourceSpec:
    """The Source's spec."""
    return SourceSpec.model_validate({"folder": "/x", **given})


def loaded(*keys: Key, **given: Any) -> LoadSeen:
    """r2 as it was read."""
    return LoadSeen(Want("r2", "w"), 499.0, frozenset(keys), **given)


def newer(**given: Any) -> SourceFacts:
    """r2 was fetched."""
    return facts({"fetched": {**FETCHED, "revision": "r2"}}, tree_held=True, **given)


def test_a_source_in_force_does_nothing_and_is_looked_at_when_its_fetch_is_due() -> None:
    plan = plan_source(facts(), spec(), NOW)
    assert plan.converged
    assert plan.again is not None
    assert 55.0 <= plan.again <= 61.0


def test_fetches_are_spread_over_a_tenth_of_the_interval_and_no_less_than_it_apart() -> None:
    dues = [fetch_due(facts(fetched=FetchSeen(500.0, float(n))), spec(interval="100s"), NOW) for n in range(50)]
    assert min(dues) >= 100.0
    assert max(dues) <= 110.0
    assert max(dues) - min(dues) > 5.0


@pytest.mark.parametrize(
    "given",
    [{"fetched": None}, {"moved": True}, {"asks_for": "another"}, {"local": {"sync": {"id": "x"}}}],
    ids=["not in this life", "a folder moved", "the spec asks for another", "a person asks"],
)
def test_a_fetch_is_due_at_once(given: dict[str, Any]) -> None:
    (action,) = plan_source(facts(**given), spec(), NOW).actions
    assert isinstance(action, do.FetchSource)


def test_a_source_that_cannot_be_reached_holds_up_nothing_of_what_was_fetched() -> None:
    failed = repr(do.FetchSource(EDGE, "asks"))
    fault = Fault("fetching", failed, Category.UNAVAILABLE, "gone", "", Retry.BACKOFF, until=600.0)
    seen = newer(fetched=None, fault=fault)
    plan = plan_source(seen, spec(), NOW)
    assert [type(action) for action in plan.actions] == [do.LoadRevision, do.FetchSource]
    assert performable(plan, fault, NOW) == plan.actions[:1]
    for other in (replace(seen, moves=1), newer(fetched=None, fault=fault, local={"sync": {"id": "x"}})):
        again = plan_source(other, spec(), NOW)
        assert [type(action) for action in again.actions] == [do.FetchSource], "a change is not held up"
        assert performable(again, fault, NOW) == again.actions


def test_a_newer_revision_is_loaded_then_applied_with_what_it_does_not_want_any_more() -> None:
    assert plan_source(newer(), spec(), NOW).actions == (do.LoadRevision(EDGE, "r2", "w"),)
    plan = plan_source(newer(loaded=loaded(A, C)), spec(), NOW)
    assert plan.actions == (do.ApplyRevision(EDGE, "r2", "w", frozenset({B})),)
    kept = plan_source(newer(loaded=loaded(A, C)), spec(prune=False), NOW)
    assert kept.actions == (do.ApplyRevision(EDGE, "r2", "w", frozenset()),)


def test_what_was_lost_is_put_back_by_the_same_revision() -> None:
    lost = facts(members={A: Member(True)}, tree_held=True)
    assert plan_source(lost, spec(), NOW).actions == (do.LoadRevision(EDGE, "r1", "w"),)


@pytest.mark.parametrize(
    ("given", "reason", "words"),
    [
        ({"loaded": loaded(faults=("a.yaml:1:2: bad",), count=3)}, "Invalid", "a.yaml:1:2: bad (and 2 more)"),
        ({"loaded": loaded(A, B), "foreign": {A: "hand"}}, "OtherManager", "volume/a belongs to hand"),
        ({"loaded": loaded()}, "PruneRefused", "is empty and would remove 2 of 2 objects: volume/a, volume/b"),
        ({"loaded": loaded(C)}, "PruneRefused", "would remove 2 of 2 objects"),
    ],
)
def test_what_stands_in_the_way_is_told_remembered_once_and_changes_nothing(
    given: dict[str, Any], reason: str, words: str
) -> None:
    plan = plan_source(newer(**given), spec(), NOW)
    (remember,), (wait,) = plan.actions, plan.waits
    assert isinstance(remember, do.Remember)
    assert (wait.reason, wait.stalled) == (reason, True)
    assert words in wait.message
    seen = newer(**given)
    again = replace(seen, obj=replace(seen.obj, record={**seen.obj.record, **remember.changes}))
    assert plan_source(again, spec(), NOW).actions == ()


def test_one_object_less_may_always_go_and_half_of_them_too() -> None:
    assert plan_source(newer(loaded=loaded(A)), spec(), NOW).waits == ()
    members = {key: Member(True) for key in (A, B, C, D)}
    half = newer(loaded=loaded(A, B), members=members)
    assert plan_source(half, spec(), NOW).waits == ()
    strict = replace(half, prune_limit=49)
    assert plan_source(strict, spec(), NOW).waits[0].reason == "PruneRefused"
    assert plan_source(strict, spec(allowMassPrune=True), NOW).waits == ()


def test_a_source_among_what_goes_counts_with_all_that_it_manages() -> None:
    members = {A: Member(True), B: Member(True), Key(Kind.SOURCE, "child"): Member(True, weight=9)}
    plan = plan_source(newer(loaded=loaded(A, B), members=members), spec(), NOW)
    assert "would remove 9 of 11 objects" in plan.waits[0].message


def test_a_rewound_history_is_refused_before_it_is_read_unless_it_may_be() -> None:
    seen = facts({"fetched": {**FETCHED, "revision": "r2", "descends": False}}, tree_held=True)
    plan = plan_source(seen, spec(), NOW)
    assert plan.waits[0].reason == "Rewound"
    assert isinstance(plan_source(seen, spec(allowRewind=True), NOW).actions[0], do.LoadRevision)


def test_a_reference_to_nothing_waits_and_then_is_stalled() -> None:
    seen = newer(loaded=loaded(A, B, needs=((C, "x.yaml:3:4"),)))
    (wait,) = plan_source(seen, spec(), NOW).waits
    assert (wait.reason, wait.stalled, "there is no volume/c (x.yaml:3:4)" in wait.message) == (
        "WaitingFor",
        False,
        True,
    )
    later = plan_source(replace(seen, fetched=FetchSeen(1099.0, 2000.0)), spec(), Now(2000.0, 1099.0))
    assert later.waits[0].stalled
    assert plan_source(replace(seen, present=frozenset({C})), spec(), NOW).waits == ()


def test_a_held_node_applies_no_new_revision_but_puts_back_what_was_lost() -> None:
    hold = {"until": 1100.0, "reason": "demo"}
    (wait,) = plan_source(newer(loaded=loaded(A, B), hold=hold), spec(), NOW).waits
    assert (wait.reason, wait.seconds, "demo" in wait.message) == ("Held", 100.0, True)
    lost = facts(members={A: Member(True)}, tree_held=True, hold=hold)
    assert plan_source(lost, spec(), NOW).actions != ()
    over = newer(loaded=loaded(A, B), hold={"until": 999.0})
    assert isinstance(plan_source(over, spec(), NOW).actions[0], do.ApplyRevision)


@pytest.mark.parametrize(("until", "again"), [(None, None), (1100.0, 100.0)])
def test_a_suspended_source_is_left_alone(until: float | None, again: float | None) -> None:
    seen = newer(local={"suspend": {"until": until, "reason": "why not"}}, fetched=None)
    plan = plan_source(seen, spec(), NOW)
    assert (plan.actions, plan.waits, plan.again) == ((), (), again)
    detail = source_detail(seen, plan)
    assert (detail.ready, detail.reason, "why not" in detail.message) == (True, "Suspended", True)


def test_a_rollback_holds_until_the_source_moves_on() -> None:
    asked = {"number": 1, "name": "edge-1", "revision": "r0", "over": "r2"}
    held = newer(local={"rollback": asked})
    assert plan_source(held, spec(), NOW).actions == (do.LoadRevision(EDGE, "r0", "rollback/1"),)
    moved = facts({"fetched": {**FETCHED, "revision": "r3"}}, local={"rollback": asked})
    assert plan_source(moved, spec(), NOW).actions == (do.AskLocal(EDGE, {"rollback": None}),)


def test_without_an_agent_nothing_is_done_and_nothing_is_known() -> None:
    seen = facts({"applied": None, "fetched": None}, fetches=False)
    plan = plan_source(seen, spec(), NOW)
    assert plan.converged
    assert (source_detail(seen, plan).ready, source_detail(seen, plan).reason) == (None, "WaitsForAgent")


def test_a_source_that_goes_takes_its_objects_first_and_itself_when_they_are_gone() -> None:
    seen = facts()
    dying = replace(seen, obj=replace(seen.obj, deleted=1.0))
    assert plan_source(dying, spec(), NOW).actions == (do.LetGoOfMembers(EDGE, keep=False),)
    assert plan_source(dying, spec(prune=False), NOW).actions == (do.LetGoOfMembers(EDGE, keep=True),)
    going = replace(dying, members={A: Member(True, going=True)})
    assert plan_source(going, spec(), NOW).waits[0].reason == "Removing"
    gone = replace(dying, members={})
    assert plan_source(gone, spec(), NOW).actions == (do.ForgetSource(EDGE), do.Release(EDGE))
