"""`init: true`, devices, and ids that no container of a name uses again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.workloads import Stage, eventually, stage
from tests.registry import Registry
from tests.runtimes import QUICK

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", params=QUICK)
def st(registry: Registry, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """One node for the module, for each runtime."""
    with stage(registry, request.param) as made:
        yield made


def test_a_container_with_an_init_leaves_no_zombies_and_ends_as_its_command_does(st: Stage) -> None:
    zombie = "(sleep 0.1 & exec sleep 0) ; sleep 1000"
    st.must_apply(st.container("tended", zombie, init=True, stop={"signal": "TERM", "grace": "20s"}))
    st.pid("tended")
    assert st.exec("tended", "cat /proc/1/comm").strip() in ("catatonit", "init")
    states = "cat /proc/[0-9]*/stat 2>/dev/null | cut -d' ' -f3 | sort -u"
    eventually(lambda: "Z" not in st.exec("tended", states), "no zombie is left")
    assert st.node.cli("stop", "tended", "--timeout", "10s").returncode == 0
    st.delete("container/tended")
    done = st.apply(st.container("once", "exit 7", init=True, restart={"policy": "Never"}))
    assert done.returncode == 0, done.stderr
    assert st.exited("once")["exitCode"] == 7
    st.delete("container/once")


def test_an_id_is_never_used_again(st: Stage) -> None:
    st.must_apply(st.container("anew", "sleep 1000"))
    first = st.status("container/anew")["snapshot"]
    st.delete("container/anew")
    st.must_apply(st.container("anew", "sleep 1000"))
    assert st.status("container/anew")["snapshot"] == first[:-1] + "2"
    st.delete("container/anew")


def test_a_container_gets_the_devices_that_it_names_and_no_other(st: Stage) -> None:
    mknod = "mknod /x b 7 0; dd if=/x of=/dev/null count=1 2>&1"
    given = {"devices": ["/dev/loop0"]}
    st.must_apply(st.container("with", "sleep 1000", security=given), st.container("without", "sleep 1000"))
    assert st.exec("with", "stat -c %t:%T /dev/loop0").strip() == "7:0"
    assert st.node.cli("exec", "without", "--", "test", "-e", "/dev/loop0").returncode == 1
    denied = st.node.cli("exec", "without", "--", "sh", "-c", mknod)
    assert denied.returncode != 0, denied
    st.delete("container/with", "container/without")


def test_a_device_that_is_not_there_is_an_error_that_names_it(st: Stage) -> None:
    done = st.apply(st.container("lost", "true", security={"devices": ["/dev/no-such-device"]}))
    assert done.returncode == 1
    assert "/dev/no-such-device" in done.stderr
    st.delete("container/lost")
