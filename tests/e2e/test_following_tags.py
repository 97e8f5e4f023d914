"""A tag that moves, and a registry that is away: what runs, and what the image says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry, image_layouts

pytestmark = pytest.mark.root

INTERVAL = 10.0


@pytest.fixture(scope="module")
def st(registry: Registry) -> Iterator[Stage]:
    """One node for the module."""
    with stage(registry) as made:
        yield made


def checked(st: Stage, key: str) -> float:
    """When the registry was last asked."""
    return float(st.there(key).record.get("checkedAt") or 0.0)


def asked_again(st: Stage, image: dict[str, Any]) -> None:
    """Has the agent look at the image once its interval is over, and waits until it has asked."""
    key, number = f"image/{image['metadata']['name']}", 0
    before = checked(st, key)

    def looked() -> bool:
        nonlocal number
        if time.time() < before + INTERVAL:
            return False
        number += 1
        labels = {"look": str(number)}
        st.submit({**image, "metadata": {**image["metadata"], "labels": labels}})
        return checked(st, key) != before

    eventually(looked, f"{key} is asked for again", seconds=40)


def test_a_tag_that_moves_is_followed_and_a_registry_that_is_away_stops_nothing(
    st: Stage, make_registry: Callable[..., Registry]
) -> None:
    own = make_registry()
    ref = own.push(image_layouts("busybox")[0], "follow:latest")
    update = {"policy": "Digest", "interval": f"{INTERVAL:.0f}s"}
    image = document("Image", "follow", {"ref": ref, "update": update})
    always = document("Image", "always", {"ref": ref, "pullPolicy": "Always", "update": {"interval": "24h"}})
    st.must_apply(image, st.container("follower", "sleep 1000", image="follow"))
    first, pid = st.status("image/follow")["digest"], st.pid("follower")

    st.odd_image("follow", {}, {"new": (0, 0o644, b"newer")}, own)
    st.must_apply(always)
    assert st.status("image/always")["digest"] != first, "what is held is not taken for what the tag means"
    asked_again(st, image)
    eventually(lambda: st.status("image/follow").get("digest") != first, "the new digest is pulled")
    eventually(lambda: st.status("container/follower").get("pid") not in (None, pid), "it is replaced", seconds=30)
    assert st.exec("follower", "cat /new") == "newer"
    pid = st.pid("follower")

    own.stop()
    asked_again(st, image)
    stale = eventually(lambda: st.condition("image/follow", "Stale"), "it says that it may be old")
    assert (stale["status"], stale["reason"]) == ("True", "Unavailable")
    assert st.condition("image/follow", "Ready")["status"] == "True"
    assert st.node.cli("wait", "image/follow", "--for", "Ready", "--timeout", "5s").returncode == 0
    again = document("Image", "again", {"ref": ref, "pullPolicy": "Always"})
    st.must_apply(again)
    assert st.condition("image/again", "Stale")["status"] == "True"
    assert st.pid("follower") == pid
    st.delete("container/follower", "image/follow", "image/always", "image/again")
