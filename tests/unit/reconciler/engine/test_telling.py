"""Which trace the work on an object belongs to, from the store and over the engine's looks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import pytest

from core import telemetry
from core.clock import SystemClock, VirtualClock
from core.signals import SPANS
from reconciler.engine import telling
from reconciler.engine.lanes import Lanes
from reconciler.engine.queue import WorkQueue
from reconciler.engine.telling import Stories, watch
from reconciler.model.actions import Action
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object
from reconciler.store.functions import Manager, Wanted, apply_specs, create_owned
from reconciler.store.memory import MemoryStore
from tests.fakes.collector import Collector, points, until

ASKED = f"00-{'a' * 32}-{'b' * 16}-01"
WEB = Key(Kind.CONTAINER, "web")
SETTLED = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True", "reason": "Running"}]}
HAND = Manager("hand")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": made.url, "OTEL_METRIC_EXPORT_INTERVAL": "100"}
        telemetry.configure(environment, SystemClock())
        yield made
        telemetry.shutdown(2.0)


def web(**fields: object) -> Object:
    return replace(Object(WEB, uid="1", generation=1, trace=ASKED), **fields)  # type: ignore[arg-type]


def looked(stories: Stories, obj: Object, *, ends: bool = False) -> str:
    """One look that does something; its traceparent."""
    with stories.look(obj) as look:
        stories.goes_on(obj, look)
        text = look.parent
    if ends:
        stories.ends(obj.key)
    return text


def test_the_first_looks_hang_on_who_asked_and_what_happens_later_on_a_trace_of_its_own(collector: Collector) -> None:
    stories = Stories()
    first, second = looked(stories, web()), looked(stories, web(), ends=True)
    exit_, restart = looked(stories, web(status=SETTLED)), looked(stories, web())
    telemetry.shutdown()
    by_id = {span.id: span for span in collector.spans()}
    spans = [by_id[text.split("-")[2]] for text in (first, second, exit_, restart)]
    assert [span.trace == "a" * 32 for span in spans] == [True, True, False, False]
    assert [span.parent for span in spans[:3]] == ["b" * 16, "b" * 16, ""]
    assert spans[2].links == ("a" * 32,)
    assert (spans[3].trace, spans[3].parent) == (spans[2].trace, spans[2].id)


def test_where_apply_told_nothing_the_first_look_begins_the_trace_of_all_the_others(collector: Collector) -> None:
    stories = Stories()
    texts = [looked(stories, web(trace="")) for _ in range(3)]
    assert len({text.split("-")[1] for text in texts}) == 1
    anew = looked(stories, web(trace="", generation=2))
    assert anew.split("-")[1] != texts[0].split("-")[1], "another spec is another story"


def test_objects_carry_the_trace_of_who_changed_them_and_pass_it_to_what_is_made_for_them(collector: Collector) -> None:
    store = MemoryStore(VirtualClock())

    def apply(value: str) -> Object:
        with telemetry.span("apply"):
            apply_specs(store, [Wanted(WEB, {"image": value})], HAND, finalizers={})
        found = store.get(WEB)
        assert found is not None
        return found

    first, same, other = apply("a"), apply("a"), apply("b")
    assert len(first.trace) == 55
    assert (same.trace, same.version) == (first.trace, first.version), "what changes nothing writes nothing"
    assert other.trace != first.trace
    made = create_owned(store, other, Object(Key(Kind.IMAGE, "a"), spec={"ref": "a"}))
    assert made.trace == other.trace
    assert "trace" not in str(other.to_json())


def test_every_action_has_a_span_of_the_table() -> None:
    for action in get_args(Action):
        assert telling._NAMES.get(action) in SPANS, f"{action.__name__} is told as nothing in particular"


def test_while_it_is_off_nothing_is_carried() -> None:
    store = MemoryStore(VirtualClock())
    apply_specs(store, [Wanted(WEB, {"image": "a"})], HAND, finalizers={})
    found = store.get(WEB)
    assert found is not None
    assert found.trace == ""
    assert looked(Stories(), found) == ""


def test_gauges_read_the_queues_the_objects_and_the_disk(collector: Collector, tmp_path: object) -> None:
    from pathlib import Path

    clock = VirtualClock()
    lanes = Lanes(WorkQueue(clock), WorkQueue(clock, lane="slow"), (Kind.IMAGE,), clock)
    store = MemoryStore(clock)
    apply_specs(store, [Wanted(WEB, {"image": "a"})], HAND, finalizers={})
    for key in (WEB, Key(Kind.IMAGE, "a"), Key(Kind.IMAGE, "b")):
        lanes.add(key)
    watch(store, lanes, Path(str(tmp_path)))
    until(lambda: "system.filesystem.usage" in collector.metrics(), "the gauges are read")
    found = collector.metrics()
    assert [value for _, value in points(found["reconciler.queue.depth"])] == [1, 2]
    states = {tuple(told.values()): value for told, value in points(found["reconciler.objects.count"])}
    assert states["Container", "not ready"] == 1
    assert states["Container", "ready"] == 0
    usage = {told["system.filesystem.state"]: value for told, value in points(found["system.filesystem.usage"])}
    assert usage["free"] > 0
    assert set(usage) == {"free", "used", "reserved"}
