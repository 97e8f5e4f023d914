"""What containers of one sandbox share, and what becomes of them when it, or what they own, changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.transfer import reference
from reconciler.model.identity import image_name
from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry
from tests.runtimes import RUNTIMES

pytestmark = pytest.mark.root

IDLE = "sleep 1000"


@pytest.fixture(scope="module", params=RUNTIMES)
def st(registry: Registry, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """One node for the module, for each runtime."""
    with stage(registry, request.param) as made:
        yield made


def sandbox(st: Stage, name: str, mode: str = "none", **spec: Any) -> dict[str, Any]:
    return document("Sandbox", name, {"runtime": st.runtime, "network": {"mode": mode}, **spec})


def namespace(pid: int, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def test_containers_of_a_sandbox_share_localhost_shm_and_host_name_and_nothing_else(st: Stage) -> None:
    box = sandbox(st, "shared", hostname="twins")
    one = st.container("one", "echo left >/dev/shm/note; httpd -f -p 127.0.0.1:80 -h /dev/shm", sandbox="shared")
    two = st.container("two", IDLE, sandbox="shared")
    st.must_apply(box, one, two)
    eventually(lambda: st.node.cli("exec", "two", "--", "wget", "-qO-", "127.0.0.1/note").stdout == "left\n", "a page")
    assert st.exec("two", "cat /dev/shm/note; hostname; cat /etc/hostname").split() == ["left", "twins", "twins"]
    assert "twins" in st.exec("two", "cat /etc/hosts")
    assert st.exec("two", "ls /sys/class/net").split() == ["lo"]
    assert "httpd" not in st.exec("two", "ps")
    pids = st.pid("one"), st.pid("two")
    for kind in ("net", "ipc", "uts"):
        assert namespace(pids[0], kind) == namespace(pids[1], kind) != namespace(os.getpid(), kind)
    for kind in ("pid", "mnt"):
        assert namespace(pids[0], kind) != namespace(pids[1], kind)


def test_no_process_idles_in_a_sandbox(st: Stage) -> None:
    st.must_apply(sandbox(st, "empty"))
    id = st.status("sandbox/empty")["id"]
    mentions = [path for path in Path("/proc").glob("[0-9]*/cgroup") if id in _read(path)]
    assert mentions == []
    assert "nsfs" in Path("/proc/self/mountinfo").read_text().split(f"netns/{id}", 1)[1].split("\n")[0]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_a_container_with_the_hosts_network_is_on_it(st: Stage) -> None:
    st.must_apply(st.container("on-host", IDLE, network={"mode": "host"}))
    assert namespace(st.pid("on-host"), "net") == namespace(os.getpid(), "net")
    assert st.exec("on-host", "ls /sys/class/net").split() == sorted(os.listdir("/sys/class/net"))


def test_dns_and_sysctls_are_the_sandboxes(st: Stage) -> None:
    box = sandbox(
        st, "tuned", dns={"servers": ["192.0.2.53"], "searches": ["example.org"]}, sysctls={"net.core.somaxconn": "77"}
    )
    st.must_apply(box, st.container("in-tuned", IDLE, sandbox="tuned"))
    said = st.exec("in-tuned", "cat /etc/resolv.conf /proc/sys/net/core/somaxconn")
    assert "nameserver 192.0.2.53" in said
    assert "search example.org" in said
    assert said.endswith("77\n")


def test_a_changed_sandbox_replaces_its_containers_in_one_plan_and_diff_says_so(st: Stage) -> None:
    docs = [st.container("a", IDLE, sandbox="moved"), st.container("b", IDLE, sandbox="moved")]
    st.must_apply(sandbox(st, "moved", hostname="old"), *docs)
    before = st.pid("a"), st.pid("b")
    diff = st.node.cli("diff", "-f", st.write(sandbox(st, "moved", hostname="new")))
    assert diff.returncode == 1
    assert "replace  sandbox/moved" in diff.stdout
    assert "replace  container/a  " in diff.stdout
    assert "(sandbox/moved changed; 1 restart)" in diff.stdout
    said = st.must_apply(sandbox(st, "moved", hostname="new"), *docs)
    assert "3 replaced" in said
    assert st.exec("a", "hostname") == st.exec("b", "hostname") == "new\n"
    assert not {st.pid("a"), st.pid("b")} & set(before)
    folder = st.node.state / "netns"
    eventually(
        lambda: len([path for path in folder.iterdir() if path.name.startswith("moved-")]) == 1, "the old is gone"
    )


def test_a_private_sandbox_is_owned_and_follows_its_container(st: Stage) -> None:
    st.must_apply(st.container("alone", IDLE))
    name = st.status("container/alone")["sandbox"]
    owned = st.there(f"sandbox/{name}")
    assert [str(owner) for owner in owned.owners] == ["container/alone"]
    st.must_apply(st.container("alone", IDLE, network={"mode": "host"}))
    assert namespace(st.pid("alone"), "net") == namespace(os.getpid(), "net")
    st.delete("container/alone")
    assert st.get(f"sandbox/{name}") is None


def test_an_image_by_reference_is_owned_by_all_who_run_it_and_goes_with_the_last(st: Stage) -> None:
    ref = st.odd_image("shared-image", {}, {"only-here": (0, 0o644, b"x" * 1000)})
    st.must_apply(st.container("r1", IDLE, image=ref), st.container("r2", IDLE, image=ref))
    key = f"image/{image_name(str(reference.parse(ref)))}"
    image = st.there(key)
    assert sorted(str(owner) for owner in image.owners) == ["container/r1", "container/r2"]
    blobs = st.node.root / "content/blobs/sha256"
    top = image.status["layers"][-1]["digest"].removeprefix("sha256:")
    assert (blobs / top).exists() or any(path.name == top for path in blobs.rglob("*"))
    st.delete("container/r1")
    assert [str(owner) for owner in st.there(key).owners] == ["container/r2"]
    st.delete("container/r2")
    eventually(lambda: st.get(key) is None, "the image is gone")
    eventually(lambda: not any(path.name == top for path in blobs.rglob("*")), "its blob is gone")


def test_images_of_one_digest_share_one_snapshot(st: Stage) -> None:
    docs = [document("Image", name, {"ref": st.image()}) for name in ("twin-a", "twin-b")]
    st.must_apply(*docs)
    assert st.status("image/twin-a")["snapshot"] == st.status("image/twin-b")["snapshot"]
