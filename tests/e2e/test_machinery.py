"""The machinery of the tests themselves: images, registry and universal checker do what the other tests rely on."""

import os
import shutil
import signal
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import leftovers
from tests.registry import Registry, free_port, image_layouts

pytestmark = pytest.mark.root

MakeRegistry = Callable[..., Registry]


def layers_of(layout: Path) -> list[Path]:
    """The layer blobs of an OCI layout, whatever their order: the blobs that are gzip."""

    def is_gzip(blob: Path) -> bool:
        with blob.open("rb") as source:
            return source.read(2) == b"\x1f\x8b"

    return sorted(filter(is_gzip, (layout / "blobs/sha256").iterdir()))


def members_of(layer: Path) -> list[tarfile.TarInfo]:
    """Everything that a layer's tar lists."""
    with tarfile.open(layer) as tar:
        return tar.getmembers()


def page(url: str, seconds: float) -> bytes:
    """The page at a URL, asked for until the server is up."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                return bytes(answer.read())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[leftovers.Place]:
    """A node's folder that is cleaned by force, whatever the test put there."""
    found = leftovers.Place(tmp_path / "node")
    (found.state / "bundles").mkdir(parents=True)
    yield found
    leftovers.clean(found)


def test_the_images_share_the_layers_they_have_in_common() -> None:
    busybox, web, other = image_layouts("busybox", "web", "web2")
    names = [{layer.name for layer in layers_of(layout)} for layout in (busybox, web, other)]
    assert names[0] < names[1]
    assert len(names[1] & names[2]) == 3


def test_the_big_image_holds_everything_a_layer_can_hold() -> None:
    (layout,) = image_layouts("debian-big")
    members = [member for layer in layers_of(layout) for member in members_of(layer)]
    names = {member.name for member in members}
    assert len(layers_of(layout)) == 5
    assert sum(member.isfile() or member.islnk() or member.issym() for member in members) >= 15_000
    assert sum(member.size for member in members) >= 300_000_000
    assert any(member.islnk() for member in members)
    assert any(member.isfifo() for member in members)
    assert any(member.mode & 0o4000 for member in members)
    assert any("SCHILY.xattr.security.capability" in member.pax_headers for member in members)
    assert any(name.endswith("/.wh..wh..opq") for name in names)
    assert all(
        name.replace(".wh.", "") in names for name in names if "/.wh." in name and not name.endswith(".wh..wh..opq")
    )


def test_a_pushed_image_has_the_same_digest_in_the_registry(registry: Registry) -> None:
    (layout,) = image_layouts("busybox")
    assert f'"digest": "{registry.digest("busybox:latest")}"' in (layout / "index.json").read_text()


def test_a_registry_with_a_login_refuses_strangers_and_takes_its_user(make_registry: MakeRegistry) -> None:
    guarded = make_registry(("user", "secret"))
    with pytest.raises(urllib.error.HTTPError, match="401") as refusal:
        urllib.request.urlopen(f"http://{guarded.host}/v2/", timeout=5)
    refusal.value.close()
    (layout,) = image_layouts("busybox")
    guarded.push(layout, "private/busybox:1")
    assert guarded.digest("private/busybox:1").startswith("sha256:")


def test_a_stopped_registry_comes_back_with_its_port_and_its_images(make_registry: MakeRegistry) -> None:
    registry = make_registry()
    (layout,) = image_layouts("busybox")
    ref = registry.push(layout, "busybox:1")
    registry.stop()
    assert registry.start().host == ref.split("/")[0]
    assert registry.digest("busybox:1").startswith("sha256:")


def test_nothing_is_found_where_nothing_was_left(place: leftovers.Place) -> None:
    assert leftovers.find(place) == []


def test_a_process_is_found_by_its_arguments_or_its_folder_and_ended(place: leftovers.Place) -> None:
    with ExitStack() as stack:
        named = stack.enter_context(subprocess.Popen(["sh", "-c", "sleep 60 # $0", place.root]))
        inside = stack.enter_context(subprocess.Popen(["sleep", "60"], cwd=place.folder))
        assert {named.pid, inside.pid} <= set(leftovers.processes(place))
        leftovers.clean(place)
        assert named.wait(5) == inside.wait(5) == -9
    assert leftovers.find(place) == []


def test_a_mount_and_a_pinned_namespace_are_found_and_taken_away(place: leftovers.Place) -> None:
    (place.state / "netns").mkdir()
    pin = place.state / "netns" / "net"
    pin.touch()
    subprocess.run(["mount", "-t", "tmpfs", "none", place.state / "bundles"], check=True)
    subprocess.run(["unshare", f"--net={pin}", "true"], check=True)
    assert [mount.kind for mount in leftovers.mounts(place)] == ["tmpfs", "nsfs"]
    leftovers.clean(place)
    assert leftovers.find(place) == []


def test_a_cgroup_and_the_processes_in_it_are_found_and_taken_away(place: leftovers.Place) -> None:
    hierarchies = [Path(mount.target) for mount in leftovers.all_mounts() if mount.kind.startswith("cgroup")]
    if not hierarchies:
        pytest.skip("no cgroups are mounted here")
    top = max(hierarchies, key=lambda path: path.name == "pids")
    group = top / f"reconciler-{place.instance}" / "helpers"
    group.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as child:
        (group / "cgroup.procs").write_text(str(child.pid))
        found = leftovers.find(place)
        assert f"process: {child.pid} 'sleep 60'" in found
        assert f"cgroup: {group.parent}" in found
        leftovers.clean(place)
        assert child.wait(5) == -9
    assert leftovers.find(place) == []


def test_a_loop_device_is_found_and_taken_away(place: leftovers.Place) -> None:
    disk = place.folder / "disk"
    disk.write_bytes(b"")
    os.truncate(disk, 1 << 20)
    done = subprocess.run(["losetup", "--find", "--show", disk], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no loop device to be had here: {done.stderr.strip()}")
    assert leftovers.find(place) == [f"loop device: {done.stdout.strip()}"]
    leftovers.clean(place)
    assert leftovers.find(place) == []


def test_a_bundle_left_behind_is_found(place: leftovers.Place) -> None:
    (place.state / "bundles" / "web-1234-1").mkdir()
    assert leftovers.find(place) == [f"bundle or namespace: {place.state}/bundles/web-1234-1"]


def test_the_web_image_serves_its_page_on_the_port_its_configuration_names(tmp_path: Path) -> None:
    if missing := [name for name in ("umoci", "chroot") if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    (layout,) = image_layouts("web")
    command = ["umoci", "unpack", "--image", f"{layout}:latest", tmp_path / "bundle"]
    subprocess.run(command, check=True, capture_output=True)
    rootfs, port = tmp_path / "bundle/rootfs", free_port()
    (rootfs / "etc/nginx/conf.d/default.conf").write_text(f"server {{ listen 127.0.0.1:{port}; root /var/www/html; }}")
    with subprocess.Popen(["chroot", rootfs, "nginx", "-g", "daemon off;"]) as server:
        try:
            assert b"Hello from web 1" in page(f"http://127.0.0.1:{port}/", seconds=10)
        finally:
            server.send_signal(signal.SIGQUIT)
        assert server.wait(10) == 0
