"""The copy of a repository on the node: killed while it is made, damaged at rest, and tidied (fault 14)."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import AgentError, NoSpace, Unavailable
from reconciler.sources import git as git_source
from reconciler.sources.git_faults import Damaged
from reconciler.sources.revisions import Fetcher
from tests.conformance.git_ground import ALONE, TOP, Ground, failure, files, git_processes
from tests.git_server import HttpGit, Repository

SECONDS = 20.0


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def scramble(path: Path) -> None:
    """Other bytes, as many as before, with other permissions if need be."""
    path.chmod(0o600)
    path.write_bytes(os.urandom(path.stat().st_size))


def cut(path: Path) -> None:
    """The first half of it."""
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    """No bytes at all, as a power cut leaves a file."""
    path.chmod(0o600)
    os.truncate(path, 0)


def gone(path: Path) -> None:
    """Not there."""
    path.unlink()


def damaged_copies() -> list[tuple[str, Callable[[Path], None]]]:
    """Each way to damage each kind of file."""
    patterns = ("objects/pack/*.pack", "objects/pack/*.idx", "refs/fetched/tip", "refs/held/*", "HEAD", "config")
    return [(pattern, how) for pattern in patterns for how in (scramble, cut, emptied, gone)]


def ends(action: Callable[[], bool]) -> None:
    """Waits until it is so."""
    deadline = time.monotonic() + SECONDS
    while not action():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def read_again(fetcher: Fetcher, origin: Repository, held: str) -> str:
    """What an agent does, attempt after attempt: fetch, and read; gives the revision that could be read at last."""
    for _ in range(3):
        try:
            revision = fetcher.fetch()
            assert files(fetcher, revision)["b.yaml"] == b"two" * 1000
        except AgentError:
            continue
        assert revision == origin.tip()
        assert fetcher.descends(revision, held)
        return revision
    raise AssertionError("it was never fetched anew")


@pytest.mark.parametrize(("pattern", "how"), damaged_copies())
def test_a_copy_with_a_damaged_file_is_replaced_by_a_good_one(
    ground: Ground, pattern: str, how: Callable[[Path], None]
) -> None:
    origin = ground.repository({"a.yaml": "one"})
    fetcher = ground.fetcher(origin)
    held = fetcher.fetch()
    origin.commit({"a.yaml": "one", "b.yaml": "two" * 1000})
    for path in list(ground.copy.glob(pattern)):
        how(path)
    read_again(fetcher, origin, held)
    assert ground.leftovers() == []


@pytest.mark.parametrize("folder", ["", "objects", "objects/pack", "refs"])
def test_a_copy_without_one_of_its_folders_is_replaced(ground: Ground, folder: str) -> None:
    origin = ground.repository({"a.yaml": "one"})
    fetcher = ground.fetcher(origin)
    held = fetcher.fetch()
    shutil.rmtree(ground.copy / folder)
    assert not fetcher.held(held)
    origin.commit({"a.yaml": "one", "b.yaml": "two" * 1000})
    read_again(fetcher, origin, held)


def test_bytes_that_are_not_what_their_id_says_are_never_handed_out(ground: Ground) -> None:
    origin = ground.repository({"a.yaml": "one", "b.yaml": "two"})
    fetcher = ground.fetcher(origin)
    revision = fetcher.fetch()
    other = Repository(ground.copy)
    with fetcher.tree(revision) as tree:
        entry = tree.entries()[0]
    # A loose object with the name of another one's bytes: git reads it without a look.
    loose = other.blob(b"evi")
    shutil.rmtree(ground.copy / "objects/pack")
    (ground.copy / "objects/pack").mkdir()
    for id in (revision, origin.git("rev-parse", f"{revision}^{{tree}}")):
        kind = origin.git("cat-file", "-t", id)
        raw = subprocess.run(["git", "--git-dir", origin.folder, "cat-file", kind, id], capture_output=True).stdout
        assert other.git("hash-object", "-t", kind, "-w", "--stdin", stdin=raw) == id
    place = ground.copy / "objects" / entry.id[:2]
    place.mkdir(exist_ok=True)
    shutil.copy(ground.copy / "objects" / loose[:2] / loose[2:], place / entry.id[2:])
    other.blob(b"two")
    with pytest.raises(Damaged), fetcher.tree(revision) as tree:
        tree.read(tree.entries()[0])
    assert fetcher.fetch() == revision
    assert files(fetcher, revision) == {"a.yaml": b"one", "b.yaml": b"two"}


def test_a_damaged_copy_stays_until_there_is_a_better_one(ground: Ground, git_web: HttpGit) -> None:
    git_web.folder = ground.folder / "served"
    origin = ground.repository({"a.yaml": "one"})
    fetcher = ground.fetcher(git_web.url("nodes.git"))
    first = fetcher.fetch()
    second = origin.commit({"a.yaml": "two"})
    fetcher.fetch()
    newest = max((ground.copy / "objects/pack").glob("*.pack"), key=lambda path: path.stat().st_mtime_ns)
    scramble(newest)
    with pytest.raises(AgentError):
        files(fetcher, second)
    git_web.stop()
    assert isinstance(failure(fetcher), Unavailable)
    assert files(fetcher, first) == {"a.yaml": b"one"}
    git_web.start()
    assert fetcher.fetch() == second
    assert files(fetcher, second) == {"a.yaml": b"two"}


def test_a_server_that_is_down_leaves_what_is_held(ground: Ground, git_web: HttpGit) -> None:
    git_web.folder = ground.folder / "served"
    origin = ground.repository({"a.yaml": "one"})
    fetcher = ground.fetcher(git_web.url("nodes.git"))
    first = fetcher.fetch()
    git_web.stop()
    assert isinstance(failure(fetcher), Unavailable)
    assert files(fetcher, first) == {"a.yaml": b"one"}
    assert fetcher.describe(first).subject == "change"
    git_web.start()
    assert fetcher.fetch() == origin.tip()


@pytest.mark.parametrize("first", [True, False])
def test_a_git_that_is_killed_in_the_middle_is_started_again(ground: Ground, git_web: HttpGit, first: bool) -> None:
    git_web.folder = ground.folder / "served"
    origin = ground.repository({"a.yaml": "one"})
    fetcher = ground.fetcher(git_web.url("nodes.git"))
    if not first:
        fetcher.fetch()
        origin.commit({"a.yaml": "two"})
    killed: list[int] = []

    def kill(_: object) -> None:
        for pid in git_processes(ground.folder):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    git_web.before = kill
    assert isinstance(failure(fetcher), Unavailable)
    assert killed
    git_web.before = None
    assert fetcher.fetch() == origin.tip()
    assert files(fetcher, origin.tip())
    assert ground.leftovers() == []


@pytest.mark.parametrize(
    ("call", "when"),
    [("rename", 1), ("rename", 2), ("rename", 4), ("rename", 6), ("mkdir", 3), ("fsync", 1), ("fsync", 5), ("link", 1)],
)
def test_an_agent_or_git_that_is_killed_at_any_step_leaves_what_the_next_one_mends(
    ground: Ground, call: str, when: int
) -> None:
    origin = ground.repository({"a.yaml": "one", "b.yaml": "two" * 1000})
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={when}"]
    ground.alone(origin, "strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", *inject)
    ends(lambda: not list(git_processes(ground.folder)))
    fetcher = ground.fetcher(origin)
    assert fetcher.fetch() == origin.tip()
    assert files(fetcher, origin.tip())["a.yaml"] == b"one"
    assert list(ground.home.folder.glob(".staging*")) == []


def test_an_agent_that_is_killed_while_the_server_answers_leaves_what_the_next_one_mends(
    ground: Ground, git_web: HttpGit
) -> None:
    git_web.folder = ground.folder / "served"
    origin = ground.repository({"a.yaml": "one"})
    url = git_web.url("nodes.git")
    command = [sys.executable, "-c", ALONE, url, str(ground.home.folder), str(ground.home.private)]
    agent = subprocess.Popen(command, cwd=TOP)
    git_web.before = lambda _: agent.kill()
    assert agent.wait(SECONDS) == -signal.SIGKILL
    git_web.before = None
    fetcher = ground.fetcher(url)  # while the dead one's git may still run: the next engine would have ended it
    assert fetcher.fetch() == origin.tip()
    assert files(fetcher, origin.tip()) == {"a.yaml": b"one"}
    ends(lambda: not list(git_processes(ground.folder)))


def test_what_is_kept_stays_and_what_is_not_goes_when_packs_become_many(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_source, "_MOST_PACKS", 3)
    origin = ground.repository({"a.yaml": "0"})
    fetcher = ground.fetcher(origin)
    seen = [fetcher.fetch()]
    for i in range(1, 6):
        origin.commit({"a.yaml": str(i)}, onto=None)
        seen.append(fetcher.fetch())
    assert all(fetcher.held(revision) for revision in seen)
    fetcher.keep([seen[2], "1" * 40])
    assert [fetcher.held(revision) for revision in seen] == [False, False, True, False, False, True]
    assert files(fetcher, seen[2]) == {"a.yaml": b"2"}
    assert len(list((ground.copy / "objects/pack").glob("*.pack"))) == 1
    assert fetcher.fetch() == seen[5]


@pytest.mark.root
def test_a_disk_that_is_full_is_told_and_room_is_enough_to_go_on(ground: Ground, tmp_path: Path) -> None:
    origin = ground.repository({"a.yaml": "one"})
    fetcher = ground.fetcher(origin)
    ground.home.folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(ground.home.folder)]
    subprocess.run(mount, check=True)
    try:
        first = fetcher.fetch()
        origin.commit({"a.yaml": "one", "big": os.urandom(2 << 20)})
        assert isinstance(failure(fetcher), NoSpace)
        assert files(fetcher, first) == {"a.yaml": b"one"}
        subprocess.run(["mount", "-o", "remount,size=8m", str(ground.home.folder)], check=True)
        assert fetcher.fetch() == origin.tip()
        subprocess.run(["mount", "-o", "remount,ro", str(ground.home.folder)], check=True)
        assert isinstance(failure(fetcher), NoSpace)
        assert files(fetcher, first) == {"a.yaml": b"one"}
    finally:
        subprocess.run(["umount", str(ground.home.folder)], check=True)


def test_a_killed_agents_secrets_are_swept_by_the_next_fetch(ground: Ground) -> None:
    left = ground.home.private / ".staging-git-0123"
    left.mkdir(parents=True)
    (left / "login").write_text("https://edge:password@h")
    fetcher = ground.fetcher(ground.repository({"a.yaml": "one"}))
    fetcher.fetch()
    assert ground.leftovers() == []
