"""What goes wrong only when it is done: the object says which phase, why, what to do, when next; others go on."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Node
from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry, free_port, image_layouts

pytestmark = pytest.mark.root

IDLE = "sleep 1000"
MakeRegistry = Callable[..., Registry]


@pytest.fixture(scope="module")
def st(registry: Registry) -> Iterator[Stage]:
    """One node for the module."""
    with stage(registry) as made:
        yield made


def fails(st: Stage, key: str, phase: str, category: str) -> Mapping[str, Any]:
    """Waits until an object tells of an error of that phase and category, with a hint's room and a next try."""
    wanted = (phase, category)

    def told() -> Any:
        obj = st.get(key)
        error = obj.status.get("lastError") if obj is not None else None
        return error if error and (error["phase"], error["category"]) == wanted else None

    error: Mapping[str, Any] = eventually(told, f"{key} fails with {wanted}")
    eventually(lambda: st.status(key).get("nextRetryAt"), f"{key} says when it is tried again")
    assert error["object"] == key
    return error


def test_a_bad_one_among_many_does_not_hold_the_others_up(st: Stage) -> None:
    good = [st.container(f"fine-{n}", IDLE) for n in range(3)]
    bad = [
        st.container("no-tag", IDLE, image=f"{st.registry.host}/busybox:9"),
        st.container("no-repository", IDLE, image=f"{st.registry.host}/nothing:1"),
        st.container("no-registry", IDLE, image="127.0.0.1:9/busybox:1"),
        st.container("no-command", command=["not-there"]),
        st.container("no-user", IDLE, user="stranger"),
    ]
    done = st.apply(*bad, *good, options=("--timeout", "8s"))
    assert done.returncode == 3, done.stderr  # the registry that does not answer may answer yet
    for one in good:
        assert st.status(f"container/{one['metadata']['name']}")["state"] == "Running"
    for text in (
        "fetching: not found: ",
        "Tags there: latest",
        "fetching: unavailable: ",
        "container/no-command: preparing: not found: ",
        "container/no-user: preparing: ",
        "next try ",
    ):
        assert text in done.stderr, done.stderr
    # without the one that may come back: all that is not ready is stalled
    assert st.apply(*bad[:2], *bad[3:], *good).returncode == 1
    describe = st.node.cli("describe", "container", "no-command").stdout
    assert "not-there" in describe
    assert st.node.cli("status").returncode == 1
    st.delete(*(f"container/{one['metadata']['name']}" for one in (*bad, *good)))


def test_a_registry_that_comes_back_is_asked_again_by_itself(st: Stage, make_registry: MakeRegistry) -> None:
    other = make_registry()
    other.push(image_layouts("busybox")[0], "busybox:1")
    other.stop()
    st.submit(document("Image", "later", {"ref": f"{other.host}/busybox:1"}))
    error = fails(st, "image/later", "fetching", "unavailable")
    assert other.host in error["message"]
    other.start()
    eventually(lambda: st.condition("image/later", "Ready").get("status") == "True", "it is pulled", seconds=40)
    assert "lastError" not in st.status("image/later")
    st.delete("image/later")


def test_a_login_is_missing_wrong_and_then_right(st: Stage, make_registry: MakeRegistry) -> None:
    guarded = make_registry(("user", "let me in"))
    ref = guarded.push(image_layouts("busybox")[0], "private/busybox:1")
    st.submit(document("Image", "private", {"ref": ref}))
    error = fails(st, "image/private", "fetching", "denied")
    assert "credentials" in error["hint"]

    def login(password: str) -> dict[str, Any]:
        return document("Secret", "login", {"stringData": {"username": "user", "password": password}})

    with_login = document("Image", "private", {"ref": ref, "credentials": {"secret": "login"}})
    wrong = st.apply(login("guess"), with_login)
    assert wrong.returncode == 1
    assert "fetching: denied: " in wrong.stderr
    assert "guess" not in wrong.stdout + wrong.stderr
    st.must_apply(login("let me in"), with_login)
    st.delete("image/private")


def test_bytes_that_are_not_what_their_digest_says_are_never_taken(st: Stage, make_registry: MakeRegistry) -> None:
    liar = make_registry()
    ref = st.odd_image("lie", {}, {"large": (0, 0o644, bytes(range(256)) * 12000)}, liar)
    layer = max(liar.storage.rglob("data"), key=lambda path: path.stat().st_size)
    whole = layer.read_bytes()
    layer.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    liar.stop()  # it may remember the blob
    liar.start()
    st.submit(document("Image", "lie", {"ref": ref}), st.container("lied-to", IDLE, image="lie"))
    error = fails(st, "image/lie", "fetching", "corrupt")
    eventually(lambda: st.condition("image/lie", "Stalled"), "it is fetched once more, then left to a person")
    failures = [event for event in st.store.events(0) if str(event.key) == "image/lie" and event.type == "Warning"]
    assert sum(event.count for event in failures) == 2
    assert layer.parent.name in error["message"]
    assert layer.parent.name not in blobs(st.node)
    assert not list(st.node.root.rglob(".staging-*"))
    layer.write_bytes(whole)
    st.submit(document("Image", "lie", {"ref": ref, "update": {"interval": "1h"}}))  # the person did something
    eventually(lambda: st.status("container/lied-to").get("pid"), "with the right bytes it runs", seconds=40)
    st.delete("container/lied-to", "image/lie")


def blobs(node: Node) -> set[str]:
    """The digests of all blobs that are held."""
    return {path.name for path in (node.root / "content/blobs/sha256").rglob("*") if path.is_file()}


def test_who_wants_a_taken_port_of_the_host_says_so_in_its_log_and_the_first_goes_on(st: Stage) -> None:
    port = free_port()
    (st.files / "site.conf").write_text(f"server {{ listen 127.0.0.1:{port}; root /var/www/html; }}\n")
    mounts = [{"path": "/etc/nginx/conf.d/default.conf", "file": "site.conf"}]
    web = {"image": st.image("web"), "network": {"mode": "host"}, "mounts": mounts}
    st.must_apply(st.container("web-first", **web))
    pid = st.pid("web-first")
    st.submit(st.container("web-second", **web))
    eventually(lambda: st.status("container/web-second").get("exitCode"), "the second ends")
    log = eventually(lambda: st.node.cli("logs", "web-second").stderr, "it says why", seconds=30)
    assert f"bind() to 127.0.0.1:{port} failed (98: Address already in use)" in log
    assert st.status("container/web-first")["pid"] == pid
    assert st.status("container/web-first")["restarts"] == 0
    st.delete("container/web-second", "container/web-first")


def test_a_full_disk_is_named_and_when_there_is_room_it_goes_on(registry: Registry) -> None:
    with stage(registry, agent=False) as small:
        root = small.node.root
        small.store.close()
        shutil.rmtree(root)
        root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", root], check=True)
        try:
            small.open()
            small.node.spawn("agent")
            small.submit(small.container("large", IDLE, image=small.image("web")))
            image = eventually(
                lambda: next((o for o in small.store.list() if o.kind.value == "Image"), None), "its image"
            )
            error = fails(small, str(image.key), "fetching", "no space")
            assert "Free space" in error["hint"]
            assert not any((root / "snapshots").rglob(".staging-*"))
            subprocess.run(["mount", "-o", "remount,size=200m", root], check=True)
            eventually(lambda: small.status("container/large").get("pid"), "it runs", seconds=40)
            small.delete("container/large")
            small.store.close()
            small.node.stop()
        finally:
            small.node.stop()
            subprocess.run(["umount", "--lazy", root], check=True)
        small.open()


def test_a_missing_runtime_is_named_with_its_package_and_found_when_it_is_installed(registry: Registry) -> None:
    runc = shutil.which("runc")
    if runc is None or shutil.which("unshare") is None:
        pytest.skip("not installed: runc or unshare")
    with stage(registry, agent=False) as bare:
        # /dev/null in its place is no program; only this agent and what it starts see it so
        hide = f'mount --bind /dev/null {runc} && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", hide, "sh", *bare.node.arguments("agent", "--private-mounts")]
        with subprocess.Popen(command) as agent:
            try:
                bare.submit(bare.container("waits", IDLE))
                error = fails(bare, "container/waits", "creating", "missing tool")
                assert error["message"] == "runc is not on this node"
                assert error["hint"] == "Install it: apt-get install runc"
                look = ["nsenter", f"--mount=/proc/{agent.pid}/ns/mnt", *bare.node.arguments("doctor")]
                doctor = subprocess.run(look, capture_output=True, text=True, check=False)
                assert doctor.returncode == 1
                assert "apt-get install runc" in doctor.stdout
                subprocess.run(["nsenter", f"--mount=/proc/{agent.pid}/ns/mnt", "umount", runc], check=True)
                eventually(lambda: bare.status("container/waits").get("pid"), "it runs", seconds=40)
                bare.delete("container/waits")
            finally:
                agent.terminate()


def test_a_changed_manifest_that_cannot_be_prepared_keeps_the_last_good_one(st: Stage, tmp_path: Path) -> None:
    good = st.container("keeps", IDLE)
    st.must_apply(good)
    pid = st.pid("keeps")
    st.submit(st.container("keeps", IDLE, image="127.0.0.1:9/busybox:1"))
    condition = eventually(lambda: st.condition("container/keeps", "Reconciling"), "it is at it")
    assert condition["status"] == "True"
    assert st.status("container/keeps")["pid"] == pid
    st.must_apply(good)
    assert st.pid("keeps") == pid


def test_registries_that_never_answer_hold_no_container_up(st: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as mute:
        host = f"127.0.0.1:{mute.getsockname()[1]}"
        names = [f"mute-{n}" for n in range(8)]
        st.submit(*(document("Image", name, {"ref": f"{host}/{name}:1"}) for name in names))
        eventually(lambda: all(st.status(f"image/{name}") for name in names[:3]), "some are being fetched")
        st.must_apply(st.container("prompt", IDLE), options=("--timeout", "15s"))
        assert st.status("container/prompt")["state"] == "Running"
    assert st.node.cli("delete", "image", *names, "--timeout", "40s").returncode == 0
