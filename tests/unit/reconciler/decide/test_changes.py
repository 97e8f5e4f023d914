"""What a plan says of each object, and what it never says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from reconciler.decide.changes import Op, Row, plan_id, preview
from reconciler.decide.edits import Edit, edits_between
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object

ATTEMPT = {"attempt": 1, "hash": "00000000", "sandbox": "web-0-1", "boot": "b", "at": 1.0}
RUNNING = {"attempt": 1, "current": ATTEMPT}
ENDED = {**RUNNING, "ended": {"attempt": 1, "code": 0, "at": 2.0}}
HELD = {"chain": "sha256:" + "a" * 64}


def image(name: str = "web", ref: str = "registry.local:5000/web:1", record: Mapping[str, Any] = HELD) -> Object:
    return Object(Key(Kind.IMAGE, name), spec={"ref": ref}, record=record, manager="hand", generation=1, uid="i")


def sandbox(**spec: Any) -> Object:
    whole = {"runtime": "runc", "network": {"mode": "host"}, **spec}
    return Object(Key(Kind.SANDBOX, "web"), spec=whole, record={"id": "web-0-1"}, manager="hand", generation=1, uid="s")


def container(name: str = "web", record: Mapping[str, Any] = RUNNING, **spec: Any) -> Object:
    whole = {"image": "web", "sandbox": "web", **spec}
    return Object(Key(Kind.CONTAINER, name), spec=whole, record=record, manager="hand", generation=1, uid=name)


def secret(**data: str) -> Object:
    return Object(Key(Kind.SECRET, "login"), spec={"stringData": data}, manager="hand", generation=1, uid="x")


def stored(*objects: Object) -> dict[Key, Object]:
    return {obj.key: obj for obj in objects}


def rows(wanted: list[Object], there: list[Object], removed: list[Object] | None = None) -> dict[str, Row]:
    found = preview(wanted, stored(*there), [obj.key for obj in removed or []])
    return {str(row.key): row for row in found}


def test_what_is_not_there_is_created_and_what_it_costs_is_unknown() -> None:
    found = rows([image(), container()], [])
    assert [row.op for row in found.values()] == [Op.CREATE, Op.CREATE]
    assert found["image/web"].fetch is None
    assert found["container/web"].fetch == 0


def test_what_is_as_wanted_needs_nothing() -> None:
    there = [image(), sandbox(), container(), secret(a="b")]
    assert {row.op for row in rows(there, there).values()} == {Op.NOTHING}


def test_an_image_that_is_held_under_another_name_costs_no_bytes() -> None:
    assert rows([image("other")], [image()])["image/other"].fetch == 0


def test_a_container_of_a_reference_fetches_it_itself() -> None:
    assert rows([container(image="registry.local:5000/web:2")], [])["container/web"].fetch is None


@pytest.mark.parametrize(
    ("spec", "op"),
    [
        ({"command": ["sh"]}, Op.REPLACE),
        ({"env": [{"name": "A", "value": "1"}]}, Op.REPLACE),
        ({"resources": {"memory": "64Mi"}}, Op.CHANGE),
        ({"restart": {"policy": "Never"}}, Op.CHANGE),
        ({"stop": {"grace": "1s"}, "log": {"files": 2}}, Op.CHANGE),
        ({"stop": {"grace": "1s"}, "user": "1000"}, Op.REPLACE),
    ],
)
def test_a_container_is_replaced_unless_it_can_change_in_place(spec: dict[str, Any], op: Op) -> None:
    row = rows([container(**spec)], [container()])["container/web"]
    assert (row.op, row.restarts) == (op, int(op is Op.REPLACE))
    assert row.cause == ", ".join(f"spec.{name}" for name in spec) + " changed"


def test_a_container_that_never_started_has_nothing_to_replace() -> None:
    row = rows([container(command=["sh"])], [container(record={})])["container/web"]
    assert (row.op, row.restarts) == (Op.CHANGE, 0)


def test_a_container_that_ended_is_replaced_without_interrupting_anything() -> None:
    row = rows([container(command=["sh"])], [container(record=ENDED)])["container/web"]
    assert (row.op, row.restarts) == (Op.REPLACE, 0)


def test_a_changed_sandbox_replaces_its_containers_also_those_not_given() -> None:
    found = rows([sandbox(hostname="a")], [sandbox(), container(), container("db"), container("done", ENDED)])
    assert found["sandbox/web"].op is Op.REPLACE
    assert found["container/db"] == Row(Key(Kind.CONTAINER, "db"), Op.REPLACE, "sandbox/web changed", (), 0, 1)
    assert "container/done" not in found


def test_a_changed_secret_replaces_those_who_use_it_and_only_those() -> None:
    user = container(mounts=[{"path": "/s", "secret": "login"}])
    other = container("other", env=[{"name": "A", "value": "b"}])
    found = rows([secret(a="new")], [secret(a="old"), user, other])
    assert found["secret/login"].op is Op.CHANGE
    assert found["container/web"].cause == "secret/login changed"
    assert "container/other" not in found


def test_a_secret_that_is_only_written_otherwise_replaces_nobody() -> None:
    same = replace(secret(a="old"), spec={"data": {"a": "b2xk"}})
    assert "container/web" not in rows([same], [secret(a="old"), container(mounts=[{"path": "/s", "secret": "login"}])])


def test_a_changed_reference_replaces_the_containers_of_the_image() -> None:
    found = rows([image(ref="registry.local:5000/web:2")], [image(), container()])
    assert (found["image/web"].op, found["image/web"].fetch) == (Op.CHANGE, None)
    assert found["container/web"].op is Op.REPLACE


def test_a_changed_pull_policy_replaces_nobody() -> None:
    changed = replace(image(), spec={**image().spec, "pullPolicy": "Never"})
    assert "container/web" not in rows([changed], [image(), container()])


def test_what_is_removed_takes_along_what_only_it_owned() -> None:
    web = container()
    private = replace(sandbox(), key=Key(Kind.SANDBOX, "web-1"), owners=frozenset({web.key}), manager="engine")
    shared = replace(image("shared"), owners=frozenset({web.key, Key(Kind.CONTAINER, "db")}), manager="engine")
    found = rows([], [web, private, shared], [web])
    assert found["sandbox/web-1"].cause == "goes with container/web"
    assert set(found) == {"container/web", "sandbox/web-1"}


def test_what_is_removed_while_it_is_used_says_by_whom() -> None:
    assert rows([], [image(), container()], [image()])["image/web"].cause == (
        "still used by container/web: goes after that"
    )


def test_what_is_being_deleted_is_made_anew() -> None:
    row = rows([container()], [replace(container(), deleted=1.0)])["container/web"]
    assert (row.op, row.cause) == (Op.CREATE, "being deleted: made anew when it is gone")


def test_no_secret_is_ever_in_a_row() -> None:
    old, new = secret(password="hunter2", gone="hunter3"), secret(password="hunter4", fresh="hunter5")
    row = rows([new], [old])["secret/login"]
    assert "hunter" not in str(row)
    assert row.edits == (
        Edit("spec.stringData.password", "***", "***"),
        Edit("spec.stringData.fresh", None, "***"),
        Edit("spec.stringData.gone", "***", None),
    )


@pytest.mark.parametrize(
    ("old", "new", "edits"),
    [
        ({"command": ["a"]}, {"command": ["a", "b"]}, [("spec.command", '["a"]', '["a", "b"]')]),
        ({}, {"resources": {"cpu": "1"}}, [("spec.resources.cpu", None, "1")]),
        ({"tty": True}, {}, [("spec.tty", "true", None)]),
        (
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            {"env": [{"name": "B", "value": "3"}]},
            [("spec.env[B].value", "2", "3"), ("spec.env[A]", '{"name": "A", "value": "1"}', None)],
        ),
        (
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            {"env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]},
            [("spec.env (order)", "A, B", "B, A")],
        ),
        ({"args": ["x" * 300]}, {}, [("spec.args", '["' + "x" * 198 + "… (304 characters)", None)]),
    ],
)
def test_a_changed_field_is_named_with_both_values(
    old: dict[str, Any], new: dict[str, Any], edits: list[tuple[str, str | None, str | None]]
) -> None:
    assert list(edits_between(container(**old), container(**new))) == [Edit(*edit) for edit in edits]


def test_the_content_of_a_file_is_not_printed() -> None:
    old, new = (container(mounts=[{"path": "/a", "file": "a", "fileContent": text}]) for text in ("aGk=", "aG8="))
    (edit,) = edits_between(old, new)
    assert edit.path == "spec.mounts[/a].fileContent"
    assert str(edit.old).startswith("content with sha256 ")


def test_taking_over_is_a_change() -> None:
    row = rows([replace(image(), manager="set/a")], [image()])["image/web"]
    assert (row.op, row.cause) == (Op.CHANGE, "metadata.manager changed")


def test_a_plan_has_another_id_when_what_was_compared_has_moved() -> None:
    before = stored(container())
    first = plan_id([container(tty=True)], before)
    assert plan_id([container(tty=True)], before) == first
    assert plan_id([container(tty=False)], before) != first
    assert plan_id([container(tty=True)], stored(replace(container(), generation=2))) != first
    assert plan_id([container(tty=True)], stored(container(), image()), [image().key]) != first


def test_a_plan_keeps_its_id_over_what_the_engine_writes() -> None:
    seen = replace(container(record=ENDED), version=99, status={"state": "Exited"})
    assert plan_id([container(tty=True)], stored(seen)) == plan_id([container(tty=True)], stored(container()))


def test_rows_are_ordered_by_kind_and_name_and_what_goes_comes_last() -> None:
    found = preview([container("b"), container("a"), image()], stored(image("old")), [Key(Kind.IMAGE, "old")])
    assert [str(row.key) for row in found] == ["image/web", "container/a", "container/b", "image/old"]
