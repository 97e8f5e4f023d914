"""What a changed configuration means for an engine that runs."""

from __future__ import annotations

import pytest

from reconciler.config import parse_config
from reconciler.decide.configuring import compare, told
from reconciler.model.config import Config


def config(text: str) -> Config:
    return parse_config(f"version: 2\n{text}\n".encode(), "config.yaml")


@pytest.mark.parametrize(
    ("before", "after", "taken_up", "waiting"),
    [
        ("", "", (), ()),
        ("", "gc: {interval: 60m}", (), ()),
        ("", "gc: {interval: 61m}", ("gc.interval",), ()),
        ("", "node: {labels: {a: x}}", ("node.labels.a",), ()),
        ("node: {labels: {a: x}}", "", ("node.labels.a",), ()),
        ("", "runtimes: {f: {path: /f}}", ("runtimes.f.path", "runtimes.f.sandboxer"), ()),
        ("root: /a", "root: /b", (), ("root",)),
        ("", "node: {name: n, labels: {a: x}}", ("node.labels.a",), ("node.name",)),
        ("transfer: {hosts: [/a, /b]}", "transfer: {hosts: [/b, /a]}", ("transfer.hosts",), ()),
    ],
)
def test_what_differs_is_taken_up_or_waits(
    before: str, after: str, taken_up: tuple[str, ...], waiting: tuple[str, ...]
) -> None:
    change = compare(config(before), config(after))
    assert (change.taken_up, change.waiting) == (taken_up, waiting)


def test_what_waits_is_not_in_force_and_the_rest_is() -> None:
    running = config("root: /a\ntransfer: {keepFree: 1}")
    change = compare(running, config("root: /b\ntransfer: {keepFree: 2}"))
    assert change.in_force == config("root: /a\ntransfer: {keepFree: 2}")
    assert told(change) == "in force: transfer.keepFree; after a restart of the agent: root"
    assert told(compare(change.in_force, change.in_force)) == "nothing is different"


def test_taking_a_change_back_leaves_nothing_waiting() -> None:
    running = config("state: /a")
    first = compare(running, config("state: /b"))
    assert compare(first.in_force, running).waiting == ()
