"""containerd's containers as manifests: the labels of its restart monitor, and what the runtime was told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.errors import Invalid
from migrations.config.work import Outcome
from tests.converting import Converted, convert

LABEL = "containerd.io/restart."


def container(labels: dict[str, str] | None = None, **more: Any) -> Converted:
    """A container called web."""
    whole = {"ID": "web", "Image": "docker.io/library/x:1", "Labels": labels or {}, **more}
    return convert("containerd-labels", json.dumps(whole, indent=4))


@pytest.mark.parametrize(
    ("policy", "ours"),
    [("", "Always"), ("always", "Always"), ("unless-stopped", "Always"), ("no", "Never"), ("on-failure", "OnFailure")],
)
def test_a_policy_of_the_restart_monitor_is_a_restart_policy(policy: str, ours: str) -> None:
    done = container({f"{LABEL}status": "running", **({f"{LABEL}policy": policy} if policy else {})})
    assert done.spec("Container", "web")["restart"] == {"policy": ours}
    assert not done.result.dropped


def test_what_the_monitor_did_not_look_after_is_not_run_again() -> None:
    assert container({f"{LABEL}policy": "always"}).spec("Container", "web")["restart"] == {"policy": "Never"}


def test_a_number_of_tries_is_told_to_be_lost() -> None:
    done = container({f"{LABEL}status": "running", f"{LABEL}policy": "on-failure:3"})
    assert done.spec("Container", "web")["restart"] == {"policy": "OnFailure"}
    assert done.entry('policy"').outcome is Outcome.DROPPED


@pytest.mark.parametrize("label", [("status", "stopped"), ("explicitly-stopped", "true")])
def test_a_container_that_was_stopped_is_told_with_what_to_say(label: tuple[str, str]) -> None:
    done = container({f"{LABEL}status": "running", LABEL + label[0]: label[1]})
    assert "reconciler stop web" in done.entry(f'{label[0]}"').why


@pytest.mark.parametrize("label", ["logpath", "loguri"])
def test_where_its_log_was_is_the_agents_log(label: str) -> None:
    entry = container({f"{LABEL}status": "running", LABEL + label: "/var/log/x"}).entry(f'{label}"')
    assert (entry.outcome, entry.to) == (Outcome.TRANSLATED, "container/web log")


def test_labels_of_people_stay_and_marks_of_clients_do_not() -> None:
    done = container({"team": "shop", "note": "free text!", "nerdctl/state-dir": "x", f"{LABEL}count": "4"})
    metadata = done.metadata("Container", "web")
    assert (metadata["labels"], metadata["annotations"]) == ({"team": "shop"}, {"note": "free text!"})
    assert done.entry('count"').outcome is Outcome.INERT


def test_nerdctls_name_and_ports_are_ours() -> None:
    labels = {"nerdctl/name": "front", "nerdctl/networks": '["bridge"]'}
    labels["nerdctl/ports"] = '[{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":"127.0.0.1"}]'
    done = container(labels)
    assert done.spec("Sandbox", "front")["network"] == {
        "ports": [{"host": 8080, "container": 80, "hostIP": "127.0.0.1"}]
    }


def test_objects_one_after_the_other_are_all_converted_with_their_lines() -> None:
    one = json.dumps({"ID": "a", "Image": "x:1"}, indent=4)
    other = one.replace('"a"', '"b"')
    done = convert("containerd-labels", f"{one}\n{other}\n")
    assert done.names("Container") == ["a", "b"]
    assert [entry.line for entry in done.result.entries if entry.key == "ID"] == [2, 6]


@pytest.mark.parametrize(
    ("labels", "says"),
    [({f"{LABEL}policy": "mostly"}, "is no restart policy"), ({"nerdctl/networks": "{"}, "is no list in JSON")],
)
def test_a_label_that_cannot_be_is_an_error_with_its_place(labels: dict[str, str], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        container(labels)


def test_what_is_no_container_is_refused() -> None:
    with pytest.raises(Invalid, match="has no ID or Image"):
        convert("containerd-labels", '{"Labels": {}}')
