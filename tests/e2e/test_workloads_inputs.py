"""What a container is given: variables, secrets, files, folders, a user, and what its image asks for."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.workloads import Stage, document, stage
from tests.registry import Registry
from tests.runtimes import QUICK

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", params=QUICK)
def st(registry: Registry, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """One node for the module, for each runtime."""
    with stage(registry, request.param) as made:
        yield made


def volume(name: str, **spec: object) -> dict[str, object]:
    return document("Volume", name, {"retain": False, **spec})


def test_variables_come_from_the_image_the_manifest_a_secret_and_the_node(st: Stage) -> None:
    secret = document("Secret", "env-secret", {"stringData": {"word": "sesame"}, "data": {"raw": "AAH/"}})
    env = [
        {"name": "PLAIN", "value": "a b ${NOT_US} $HOME"},
        {"name": "EMPTY", "value": ""},
        {"name": "WORD", "valueFrom": {"secret": {"name": "env-secret", "key": "word"}}},
        {"name": "NODE", "valueFrom": {"node": "name"}},
    ]
    said = st.said("env", "env", secret, env=env).splitlines()
    assert "PLAIN=a b ${NOT_US} $HOME" in said
    assert "EMPTY=" in said
    assert "WORD=sesame" in said
    assert f"NODE={os.uname().nodename}" in said
    assert "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in said


def test_a_secret_is_mounted_read_only_for_its_user_alone_and_lies_in_no_file_of_the_node(st: Stage) -> None:
    secret = document("Secret", "mounted", {"stringData": {"password": "open sesame"}, "data": {"raw": "AAH/"}})
    script = "cd /s; sha256sum <password; hexdump -C raw | head -1; stat -c '%a %u' . password; ls"
    said = st.said("secret", f"{script} 2>&1", secret, user="www", mounts=[{"path": "/s", "secret": "mounted"}])
    assert said.startswith(hashlib.sha256(b"open sesame").hexdigest())
    assert "00 01 ff" in said
    assert "700 1000\n400 1000" in said
    refused = st.said(
        "secret-root", "echo x >/s/password || echo refused", mounts=[{"path": "/s", "secret": "mounted"}]
    )
    assert "Read-only file system" in refused
    files = [path for path in st.node.root.rglob("*") if path.is_file() and "store.db" not in path.name]
    holding = [path for path in files if b"open sesame" in path.read_bytes()]
    assert all("applied" in path.parts and stat.S_IMODE(path.stat().st_mode) == 0o600 for path in holding), holding
    for words in (("get", "secret", "mounted", "-o", "yaml"), ("events",), ("describe", "secret", "mounted")):
        assert "sesame" not in st.node.cli(*words).stdout


def test_a_file_beside_the_manifest_is_mounted_and_its_change_replaces_the_container(st: Stage) -> None:
    config = st.files / "app.conf"
    config.write_text("one\n")
    doc = st.container("filed", "cat /etc/app.conf; sleep 1000", mounts=[{"path": "/etc/app.conf", "file": "app.conf"}])
    st.must_apply(doc)
    assert st.exec("filed", "cat /etc/app.conf; (echo x >>/etc/app.conf) 2>/dev/null || true") == "one\n"
    before = st.pid("filed")
    assert "Nothing to change" in st.must_apply(doc)
    config.write_text("two\n")
    assert "spec.mounts changed" in st.must_apply(doc)
    assert st.exec("filed", "cat /etc/app.conf") == "two\n"
    assert st.pid("filed") != before


def test_a_folder_of_the_node_is_bound_writable_or_not_and_made_on_wish(st: Stage, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    mounts = [
        {"path": "/rw", "bind": {"source": str(tmp_path / "there")}},
        {"path": "/ro", "bind": {"source": str(tmp_path / "there")}, "readOnly": True},
        {"path": "/new", "bind": {"source": str(tmp_path / "a/b"), "create": True}},
    ]
    said = st.said("bound", "echo hi >/rw/x; cat /ro/x; echo no >/ro/y; echo new >/new/z; true", mounts=mounts)
    assert said.splitlines()[0] == "hi"
    assert "Read-only file system" in said
    assert (tmp_path / "there/x").read_text() == "hi\n"
    assert (tmp_path / "a/b/z").read_text() == "new\n"


def test_a_bind_whose_source_is_missing_says_so(st: Stage, tmp_path: Path) -> None:
    done = st.apply(st.container("nobind", "true", mounts=[{"path": "/x", "bind": {"source": f"{tmp_path}/none"}}]))
    assert done.returncode == 1
    assert f"preparing: not found: bind source {tmp_path}/none is not on this node" in done.stderr
    assert "bind.create: true" in done.stderr
    st.delete("container/nobind")


def test_a_tmpfs_is_as_large_as_asked(st: Stage) -> None:
    script = "df -k /t | tail -1; head -c 2000000 /dev/zero >/t/full; ls -l /t/full"
    said = st.said("tmpfs", f"{script} 2>&1", mounts=[{"path": "/t", "tmpfs": {"size": "1Mi"}}])
    assert " 1024 " in said
    assert "1048576" in said


def test_a_volume_outlives_replacement_and_keeps_owner_mode_and_content_of_the_image(st: Stage) -> None:
    files = {"data/": (1000, 0o750, b""), "data/seed": (1000, 0o640, b"from the image\n")}
    image = st.odd_image("seeded", {}, files)
    mounts = [{"path": "/data", "volume": "seeded"}]
    script = "stat -c '%u %a' /data /data/seed; cat /data/seed; echo more >>/data/seed; sleep 1000"
    st.must_apply(volume("seeded"), st.container("keeper", script, image=image, mounts=mounts))
    assert st.exec("keeper", "stat -c '%u %a' /data /data/seed").split() == ["1000", "750", "1000", "640"]
    eventual = st.exec("keeper", "cat /data/seed")
    assert eventual == "from the image\nmore\n"
    again = st.container("keeper", script, image=image, mounts=mounts, env=[{"name": "A", "value": "b"}])
    assert "replace" in st.must_apply(volume("seeded"), again)
    assert st.exec("keeper", "sleep 0.2; cat /data/seed") == "from the image\nmore\nmore\n"
    st.delete("container/keeper", "volume/seeded")
    assert not (st.node.root / "volumes/seeded").exists()


def test_a_volume_with_owner_and_mode_has_them_and_takes_no_content(st: Stage) -> None:
    image = st.odd_image("seeded2", {}, {"data/": (1000, 0o750, b""), "data/seed": (1000, 0o640, b"x")})
    owned = volume("owned", owner="12:34", mode="0700")
    mounts = [{"path": "/data", "volume": "owned"}]
    assert st.said("owner", "stat -c '%u:%g %a' /data; ls /data", owned, image=image, mounts=mounts) == "12:34 700\n"


def test_a_retained_volume_is_taken_up_again_by_a_volume_of_its_name(st: Stage) -> None:
    kept = document("Volume", "kept", {})
    mounts = [{"path": "/data", "volume": "kept"}]
    st.said("first", "echo remembered >/data/x", kept, mounts=mounts)
    done = st.node.cli("delete", "container/first", "volume/kept")
    assert "volume/kept: its folder stays" in done.stdout
    assert st.said("second", "cat /data/x", kept, mounts=mounts) == "remembered\n"
    st.delete("container/second")
    assert st.node.cli("delete", "volume/kept", "--purge").returncode == 0
    assert not (st.node.root / "volumes/kept").exists()


@pytest.mark.parametrize(
    ("user", "identity", "others"),
    [
        ("www", "uid=1000(www) gid=1000(www)", {"50(staff)"}),
        ("1000", "uid=1000(www) gid=1000(www)", {"50(staff)"}),
        ("www:staff", "uid=1000(www) gid=50(staff)", set()),
        ("4711:12", "uid=4711 gid=12", set()),
    ],
)
def test_users_and_groups_are_those_of_the_image(st: Stage, user: str, identity: str, others: set[str]) -> None:
    said = st.said("user-" + user.replace(":", "-"), "id", user=user).strip()
    who, _, groups = said.partition(" groups=")
    assert who == identity
    assert others <= set(groups.split(","))


def test_the_working_folder_is_the_manifests_word(st: Stage) -> None:
    assert st.said("dir", "pwd", workingDir="/var/www") == "/var/www\n"


def test_an_images_entrypoint_arguments_folder_user_volume_and_stop_signal_are_obeyed(st: Stage) -> None:
    config = {
        "Entrypoint": ["/bin/say", "first"],
        "Cmd": ["second", "third"],
        "Env": ["PATH=/bin", "FROM_IMAGE=yes"],
        "WorkingDir": "/srv",
        "User": "www",
        "Volumes": {"/data": {}},
        "StopSignal": "SIGUSR1",
    }
    script = (
        b"#!/bin/sh\ntrap 'echo got usr1; exit 3' USR1\n"
        b"echo $FROM_IMAGE $(pwd) $(id -u) $@; ls /data; touch /data/mine; ls -d /data/mine\n"
        b'while [ -n "$WAIT" ]; do sleep 0.1; done\n'
    )
    files = {
        "bin/say": (0, 0o755, script),
        "srv/": (0, 0o755, b""),
        "data/": (1000, 0o755, b""),
        "data/seed": (0, 0o644, b""),
    }
    # the root's /bin is a link: the layer must not replace it
    files["usr/bin/say"] = files.pop("bin/say")
    image = st.odd_image("configured", config, files)
    once = {"image": image, "restart": {"policy": "Never"}}
    st.must_apply(
        st.container("as-is", **once),
        st.container("with-args", **once, args=["other"]),
        st.container("with-command", **once, command=["/bin/say", "mine"]),
        st.container("waiting", image=image, stop={"grace": "10s"}, env=[{"name": "WAIT", "value": "1"}]),
    )
    expected = "yes /srv 1000 {}\nseed\n/data/mine\n"
    assert st.node.cli("logs", "as-is").stdout == expected.format("first second third")
    assert st.node.cli("logs", "with-args").stdout == expected.format("first other")
    assert st.node.cli("logs", "with-command").stdout == expected.format("mine")
    st.exec("waiting", "test -e /data/mine")
    log = st.node.root / "logs" / "waiting"
    st.must_apply(st.container("waiting", image=image, stop={"grace": "10s"}, env=[{"name": "WAIT", "value": "2"}]))
    assert any("got usr1" in path.read_text() for path in log.iterdir())
