"""Looking things up inside a root that somebody else filled."""

import os
from pathlib import Path

import pytest

from core.errors import Denied, Invalid, NotFound, OverLimit
from core.runtime import rootfs
from core.runtime.spec import User

PASSWD = "# comment\nroot:x:0:0::/:/bin/sh\nwww:x:33:34::/:/x\nbad:x:y:0::/:/x\nbig:x:4294967296:0::/:/x\n"
GROUP = "root:x:0:\nwww:x:34:\nextra:x:44:other,www\nmore:x:45:www\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    return root


def user(root: Path, text: str) -> User:
    with rootfs.opened(root) as fd:
        return rootfs.resolve_user(fd, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", User(0, 0)),
        ("0", User(0, 0)),
        ("1000", User(1000, 0)),
        ("33", User(33, 34, (44, 45))),
        ("www", User(33, 34, (44, 45))),
        ("www:www", User(33, 34)),
        ("www:7", User(33, 7)),
        ("1000:1000", User(1000, 1000)),
        ("1000:extra", User(1000, 44)),
        (":44", User(0, 44)),
        ("2147483647", User(2147483647, 0)),
    ],
)
def test_users_and_groups_are_found_by_name_and_number(root: Path, text: str, expected: User) -> None:
    assert user(root, text) == expected


@pytest.mark.parametrize(
    "text",
    ["2147483648", "4294967296", "4294967296:0", "0:4294967296", "99999999999999999999", "bad", "big", "-1", "٣"],
)
def test_numbers_that_overflow_and_names_that_are_none_are_refused(root: Path, text: str) -> None:
    with pytest.raises(Invalid):
        user(root, text)


def test_an_unknown_name_is_answered_with_those_that_are_there(root: Path) -> None:
    with pytest.raises(Invalid, match="root, www") as caught:
        user(root, "nobody-here")
    assert caught.value.hint()
    with pytest.raises(Invalid, match="extra, more"):
        user(root, "www:nogroup")


def test_without_a_passwd_file_numbers_still_work(tmp_path: Path) -> None:
    assert user(tmp_path, "5:6") == User(5, 6)
    with pytest.raises(Invalid, match="none"):
        user(tmp_path, "www")


def test_a_passwd_file_that_leads_out_is_looked_for_inside(root: Path, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("evil:x:0:0::/:/x\n")
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to("../../passwd")
    with pytest.raises(Invalid):
        user(root, "evil")
    (root / "passwd").write_text("inside:x:9:9::/:/x\n")
    assert user(root, "inside") == User(9, 9)


def test_a_passwd_file_that_is_a_pipe_or_too_large_does_not_hang_or_fill(root: Path) -> None:
    (root / "etc/passwd").unlink()
    os.mkfifo(root / "etc/passwd")
    assert user(root, "3") == User(3, 0)
    (root / "etc/passwd").unlink()
    with open(root / "etc/passwd", "wb") as big:
        big.truncate(1 << 40)
    with pytest.raises(OverLimit):
        user(root, "www")


def command(root: Path, name: str, *, env: tuple[str, ...] = ("PATH=/bin:/usr/bin",), cwd: str = "/") -> str:
    with rootfs.opened(root) as fd:
        return rootfs.find_command(fd, name, env, cwd)


def test_a_command_is_found_as_execvp_finds_it(root: Path) -> None:
    for path in ("usr/bin/tool", "app/run", "bin/plain"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("")
        (root / path).chmod(0o755)
    (root / "bin/plain").chmod(0o644)
    (root / "bin/link").symlink_to("/usr/bin/tool")
    assert command(root, "tool") == "/usr/bin/tool"
    assert command(root, "link") == "/bin/link"
    assert command(root, "/usr/bin/tool") == "/usr/bin/tool"
    assert command(root, "./run", cwd="/app") == "/app/./run"
    assert command(root, "tool", env=()) == "/usr/bin/tool"
    with pytest.raises(NotFound, match=r"not found in the image: nothing \(PATH /bin:/usr/bin\)"):
        command(root, "nothing")
    with pytest.raises(NotFound):
        command(root, "tool", env=("PATH=/bin:/usr/bin", "PATH=/elsewhere"))
    with pytest.raises(Denied):
        command(root, "plain")
    with pytest.raises(Denied):
        command(root, "/app")
    with pytest.raises(NotFound):
        command(root, "x" * 300)


def test_a_command_of_the_host_is_not_found_through_links(root: Path) -> None:
    (root / "bin").mkdir()
    (root / "bin/sh").symlink_to("/bin/busybox-of-the-host")
    (root / "bin/magic").symlink_to("/proc/self/exe")
    for name in ("sh", "magic"):
        with pytest.raises(NotFound):
            command(root, name)


def test_a_working_folder_is_made_where_it_is_missing_and_owned(root: Path) -> None:
    owner = User(os.geteuid(), os.getegid())
    with rootfs.opened(root) as fd:
        rootfs.make_folder(fd, "/srv/app/data", owner)
        rootfs.make_folder(fd, "/srv/app/data", owner)
        rootfs.make_folder(fd, "/", owner)
        assert (root / "srv/app/data").is_dir()
        (root / "file").write_text("")
        with pytest.raises(Invalid):
            rootfs.make_folder(fd, "/file/x", owner)


def test_a_working_folder_through_a_link_stays_inside(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (root / "leads").symlink_to("../outside")
    (root / "outside").mkdir()
    with rootfs.opened(root) as fd:
        rootfs.make_folder(fd, "/leads/x", User(os.geteuid(), os.getegid()))
        (root / "dangling").symlink_to("/nowhere")
        with pytest.raises(Invalid):
            rootfs.make_folder(fd, "/dangling/x", User())
    assert list((tmp_path / "outside").iterdir()) == []
    assert (root / "outside/x").is_dir()


def test_an_empty_volume_takes_content_mode_and_links_as_they_are(root: Path, tmp_path: Path) -> None:
    (root / "data/sub").mkdir(parents=True)
    (root / "data").chmod(0o750)
    (root / "data/sub/file").write_text("content")
    (root / "data/sub/file").chmod(0o640)
    (root / "data/link").symlink_to("/etc/shadow")
    os.mkfifo(root / "data/pipe")
    volume = tmp_path / "volume"
    volume.mkdir()
    with rootfs.opened(root) as fd:
        assert rootfs.copy_up(fd, "/data", volume)
        assert not rootfs.copy_up(fd, "/data", volume), "it is not empty any more"
    assert volume.stat().st_mode & 0o777 == 0o750
    assert (volume / "sub/file").read_text() == "content"
    assert (volume / "sub/file").stat().st_mode & 0o777 == 0o640
    assert os.readlink(volume / "link") == "/etc/shadow"
    assert not (volume / "pipe").exists()


def test_a_volume_for_a_path_the_image_lacks_stays_empty(root: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    with rootfs.opened(root) as fd:
        assert not rootfs.copy_up(fd, "/no/such", volume)
        assert not rootfs.copy_up(fd, "/etc/passwd", volume)


def test_a_volume_never_takes_a_folder_of_the_host(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("x")
    (root / "data").symlink_to("../../secret")
    volume = tmp_path / "volume"
    volume.mkdir()
    with rootfs.opened(root) as fd:
        assert not rootfs.copy_up(fd, "/data", volume)
    assert list(volume.iterdir()) == []


def test_folders_nested_without_end_are_over_the_limit(root: Path, tmp_path: Path) -> None:
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    os.mkdir("deep", dir_fd=here)
    for _ in range(220):
        below = os.open("deep", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
        os.mkdir("deep", dir_fd=here)
    os.close(here)
    volume = tmp_path / "volume"
    volume.mkdir()
    with rootfs.opened(root) as fd, pytest.raises(OverLimit):
        rootfs.copy_up(fd, "/deep", volume)
    assert list(volume.iterdir()) == []
    assert not list(tmp_path.glob(".staging*"))
