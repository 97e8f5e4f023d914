"""why and graph: what they say of objects as the engine leaves them."""

from __future__ import annotations

import json
from dataclasses import replace

from reconciler.cli.graph import writers
from reconciler.cli.why import lines
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object, Origin
from reconciler.store.port import Event
from tests.unit.reconciler.cli.conftest import Cli
from tests.unit.reconciler.cli.objects import NOW, bad_image, condition, job, login, made, status, web

STARTED = Event(0, Key(Kind.CONTAINER, "web"), "Normal", "Started", "web-ab-1", NOW - 400, NOW - 300)
KILLED = Event(0, Key(Kind.CONTAINER, "web"), "Warning", "OOMKilled", "attempt 1 ended with code 137", NOW, NOW)
OTHERS = Event(0, Key(Kind.IMAGE, "web"), "Warning", "Later", "not of web", NOW + 9, NOW + 9)


def from_git() -> Object:
    return replace(web(), manager="source/edge", origin=Origin("apps/web.yaml", 12, "3f2a9c0d1e2f3a4b"))


def made_image() -> Object:
    """An image that the agent made for container/web, and that is not there."""
    return replace(
        bad_image(),
        manager="engine",
        owners=frozenset({Key(Kind.CONTAINER, "web")}),
        origin=None,
        finalizers=frozenset(),
    )


def test_it_says_who_asked_where_and_at_which_revision_and_what_was_done_last(cli: Cli) -> None:
    cli.fill(from_git(), events=(STARTED, KILLED, OTHERS))
    code, out, _ = cli("why", "container/web")
    assert code == 0
    assert out.startswith(
        "container/web is Running\n  asked for  by source/edge at revision 3f2a9c0d1e2f in apps/web.yaml:12\n"
    )
    assert "last       OOMKilled (attempt 1 ended with code 137)" in out
    assert "Later" not in out
    assert "next       nothing: it is as it should be" in out
    assert "needs      image/web (Missing), sandbox/web (Missing)" in out


def test_what_the_agent_made_was_asked_for_by_whom_it_was_made_for_and_says_when_it_is_tried_again(cli: Cli) -> None:
    cli.fill(made_image(), from_git())
    out = cli("why", "image", "web").out
    assert (
        "asked for  container/web, which was asked for by source/edge at revision 3f2a9c0d1e2f in apps/web.yaml:12"
        in out
    )
    assert "waits for  FetchingNotFound: registry.local:5000/web:9 has no such tag" in out
    assert "error      fetching: not found: registry.local:5000/web:9 has no such tag" in out
    assert "tags there: 1.1, 1.2" in out
    assert "next       nothing, until an agent runs" in out
    assert "used by    container/web" in out


def test_json_holds_all_of_it_and_nothing_secret(cli: Cli) -> None:
    local = {"stop": {"reason": "noisy", "until": NOW + 600}}
    cli.fill(made_image(), replace(from_git(), local=local), login(), events=(STARTED,))
    found = json.loads(cli("why", "image/web", "-o", "json").out)
    assert found["askedFor"] == [
        {
            "object": "container/web",
            "by": "source/edge",
            "revision": "3f2a9c0d1e2f3a4b",
            "file": "apps/web.yaml",
            "line": 12,
        }
    ]
    assert (found["ready"], found["engine"], found["lastError"]["category"]) == (False, "", "not found")
    assert found["next"]["what"] == "is tried again"
    assert json.loads(cli("why", "container/web", "-o", "json").out)["local"] == local
    assert "hunter2" not in cli("why", "secret/login", "-o", "json").out


def test_with_an_agent_the_next_try_is_told_and_local_wishes_with_reason_and_time_left(cli: Cli) -> None:
    local = {"stop": {"reason": "noisy", "until": NOW + 600}}
    cli.fill(replace(made_image(), local=local))
    found = json.loads(cli("why", "image/web", "-o", "json").out)
    said = "\n".join(lines(found, NOW, "the agent with pid 1"))
    assert "next       is tried again in 1m" in said
    assert "locally    stop (reason: noisy, for 10m more)" in said


def test_what_holds_up_what_it_needs_is_told_too_and_a_state_without_events_has_its_time(cli: Cli) -> None:
    waiting = status(
        condition("Ready", "False", "ImageNotReady", "image/web"),
        condition("Reconciling", "True", "ImageNotReady", "image/web"),
    )
    cli.fill(bad_image(), web(status=waiting))
    out = cli("why", "container/web").out
    assert "because    image/web: fetching: not found: registry.local:5000/web:9 has no such tag\n" in out
    assert "because    sandbox/web: it is not there\n" in out
    assert "last       ImageNotReady, " in out
    found = json.loads(cli("why", "container/web", "-o", "json").out)
    assert [one["object"] for one in found["because"]] == ["image/web", "sandbox/web"]
    said = "\n".join(lines(found, NOW, "the agent"))
    assert "has no such tag; tried again in 1m" in said


def test_an_object_that_is_not_there_is_an_error(cli: Cli) -> None:
    cli.fill(web())
    assert cli("why", "container/none")[0] == 1
    assert cli("graph", "container/none")[0] == 1


def parts() -> list[Object]:
    box = made(Kind.SANDBOX, "web", {"runtime": "runc"}, status=status(condition("Ready", "True", "Ready")))
    return [bad_image(), web(), job(), box, login()]


def test_the_graph_around_an_object_goes_down_to_what_it_needs_and_up_to_who_needs_it(cli: Cli) -> None:
    cli.fill(*parts())
    assert cli("graph", "image/web").out == (
        "image/web  FetchingNotFound  (hand, edge/web.yaml:7)\n"
        "├─ used by container/job  Completed\n"
        "└─ used by container/web  Running\n"
    )
    down = cli("graph", "container/web").out
    assert "├─ uses image/web  FetchingNotFound" in down
    assert "└─ uses sandbox/web  Ready" in down
    assert "job" not in down, "a sibling is not around it"
    assert "secret/login" not in down


def test_the_graph_is_read_by_programs_too(cli: Cli) -> None:
    cli.fill(*parts())
    found = json.loads(cli("graph", "container/web", "-o", "json").out)
    assert {"from": "container/web", "to": "image/web", "relation": "uses"} in found["edges"]
    assert {one["object"]: one["ready"] for one in found["objects"]} == {
        "image/web": False,
        "sandbox/web": True,
        "container/web": True,
    }
    dot = cli("graph", "container/web", "-o", "dot").out
    assert dot.startswith("digraph reconciler {")
    assert '"container/web" -> "image/web" [label="uses"];' in dot
    kinds = json.loads(cli("graph", "-o", "json").out)["kinds"]
    row = next(one for one in kinds if one["kind"] == "Container")
    assert (row["count"], row["writtenBy"], row["controller"]) == (2, {"hand": 2}, "container")
    assert {"Image", "Sandbox"} <= set(row["makes"])
    assert '"Image" -> "container controller" [label="reads"];' in cli("graph", "-o", "dot").out


def test_a_circle_of_owners_ends(cli: Cli) -> None:
    one = made(Kind.VOLUME, "a", {}, manager="engine", owners=frozenset({Key(Kind.VOLUME, "b")}))
    two = made(Kind.VOLUME, "b", {}, manager="engine", owners=frozenset({Key(Kind.VOLUME, "a")}))
    cli.fill(one, two)
    assert "volume/a is Pending" in cli("why", "volume/a").out
    assert "owns volume/b  Pending" in cli("graph", "volume/a").out


def test_every_kind_that_has_a_controller_of_its_own_has_exactly_one() -> None:
    kinds = [writer.kind for writer in writers()]
    assert len(kinds) == len(set(kinds))
    assert {Kind.IMAGE, Kind.SANDBOX, Kind.CONTAINER, Kind.VOLUME, Kind.SNAPSHOT} <= set(kinds)
