"""Changing what runs: what replaces and what does not, and that a bad change never takes the good one down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry
from tests.runtimes import QUICK

pytestmark = pytest.mark.root

IDLE = "sleep 1000"
NO_SUCH_KEY = {"name": "A", "valueFrom": {"secret": {"name": "keys", "key": "none"}}}


@pytest.fixture(scope="module", params=QUICK)
def st(registry: Registry, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """One node for the module, for each runtime."""
    with stage(registry, request.param) as made:
        yield made


def test_labels_probeless_settings_and_restart_policy_change_without_a_restart(st: Stage) -> None:
    doc = st.container("quiet", IDLE)
    st.must_apply(doc)
    pid = st.pid("quiet")
    changed = st.container(
        "quiet", IDLE, restart={"policy": "OnFailure"}, log={"maxSize": "1Mi"}, stop={"signal": "KILL", "grace": "3s"}
    )
    changed["metadata"]["labels"] = {"colour": "blue"}
    said = st.must_apply(changed)
    assert "change  container/quiet" in said
    assert st.pid("quiet") == pid
    assert st.node.cli("get", "containers", "-l", "colour=blue", "-o", "name").stdout.strip() == "container/quiet"


@pytest.mark.parametrize(
    ("name", "change", "phase", "why"),
    [
        ("no-command", {"command": ["not-in-the-image"]}, "preparing", "not-in-the-image"),
        ("no-user", {"user": "stranger"}, "preparing", "stranger"),
        ("no-key", {"env": [NO_SUCH_KEY]}, "preparing", "secret keys has no key none; it has: there"),
        ("no-folder", {"mounts": [{"path": "/x", "bind": {"source": "/not/there"}}]}, "preparing", "/not/there"),
    ],
)
def test_a_change_that_cannot_be_prepared_leaves_the_old_one_running_and_says_why(
    st: Stage, name: str, change: dict[str, Any], phase: str, why: str
) -> None:
    keys = document("Secret", "keys", {"stringData": {"there": "x"}})
    good = st.container(name, IDLE)
    st.must_apply(keys, good)
    pid = st.pid(name)
    spec = {**good["spec"], **change}
    done = st.apply(document("Container", name, spec))
    assert done.returncode == 1
    error = next(line for line in done.stderr.splitlines() if line.startswith(f"error: container/{name}: {phase}: "))
    assert why in error
    status = st.status(f"container/{name}")
    assert (status["state"], status["pid"]) == ("Running", pid)
    assert st.condition(f"container/{name}", "Stalled")["status"] == "True"
    assert status["lastError"]["phase"] == phase
    assert status["lastError"]["hint"] or name == "no-key"
    assert status["nextRetryAt"]
    # back to what runs: nothing is restarted
    st.must_apply(good)
    assert st.pid(name) == pid
    assert st.condition(f"container/{name}", "Ready")["status"] == "True"


def test_an_unknown_image_leaves_the_old_one_running(st: Stage) -> None:
    good = st.container("no-image", IDLE)
    st.must_apply(good)
    pid = st.pid("no-image")
    done = st.apply(st.container("no-image", IDLE, image=f"{st.registry.host}/busybox:9"))
    assert done.returncode == 1
    assert "fetching: not found" in done.stderr
    assert st.status("container/no-image")["pid"] == pid
    st.must_apply(good)
    assert st.pid("no-image") == pid


def test_a_switch_that_fails_starts_the_old_one_again_and_tells_both_causes(st: Stage) -> None:
    good = st.container("switch", "echo good; sleep 1000")
    st.must_apply(good)
    before = st.pid("switch")
    # the command is in the image, but a mount hides it: nobody sees that before the runtime is asked
    (st.files / "noexec").write_text("no program\n")
    bad = st.container("switch", IDLE, mounts=[{"path": "/usr/bin/sh", "file": "noexec"}])
    done = st.apply(bad)
    assert done.returncode == 1, done.stdout + done.stderr
    eventually(lambda: st.status("container/switch").get("pid") not in (None, before), "the old spec runs again")
    stalled = st.condition("container/switch", "Stalled")
    assert stalled["reason"] == "SwitchFailed"
    assert "the one before was started again" in stalled["message"]
    assert st.node.cli("logs", "switch").stdout == "good\n"
    after = st.pid("switch")
    st.must_apply(good)
    assert st.pid("switch") == after


def test_old_and_new_never_run_together(st: Stage) -> None:
    volume = document("Volume", "turns", {"retain": False})
    script = (
        "mkdir /v/running || echo TOGETHER >>/v/log; trap 'rmdir /v/running; exit' TERM; while :; do sleep 0.05; done"
    )
    mounts = [{"path": "/v", "volume": "turns"}]
    for turn in range(4):
        env = [{"name": "TURN", "value": str(turn)}]
        st.must_apply(volume, st.container("turns", script, mounts=mounts, env=env, stop={"grace": "10s"}))
    assert not (st.node.root / "volumes/turns/log").exists()


def test_a_set_removes_with_prune_what_is_no_longer_given(st: Stage) -> None:
    docs = [document("Volume", name, {"retain": False}) for name in ("m1", "m2", "m3")]
    st.must_apply(*docs, options=("--set", "many"))
    refused = st.apply(docs[0])
    assert refused.returncode == 1
    assert "set/many" in refused.stderr
    assert "--take-over" in refused.stderr
    st.must_apply(*docs[:2], options=("--set", "many"))
    assert st.get("volume/m3") is not None
    said = st.must_apply(docs[0], options=("--set", "many", "--prune"))
    assert "2 removed" in said
    assert [st.get(f"volume/{name}") is None for name in ("m1", "m2", "m3")] == [False, True, True]
    st.must_apply(docs[0], options=("--take-over",))
    assert st.there("volume/m1").manager == "hand"


def test_apply_says_what_plan_it_followed_and_refuses_another(st: Stage) -> None:
    doc = document("Volume", "planned", {"retain": False})
    plan = st.must_apply(doc, options=("--dry-run",)).split("Plan ")[1].split(":")[0]
    assert st.get("volume/planned") is None
    assert st.apply(doc, options=("--plan", "00000000")).returncode == 4
    assert st.get("volume/planned") is None
    st.must_apply(doc, options=("--plan", plan))
    assert st.get("volume/planned") is not None
