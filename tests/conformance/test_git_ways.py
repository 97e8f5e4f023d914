"""Every way to a repository, against real servers: what comes, what is shown to whom, and how it fails in words."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import cgroups
from core.clock import SystemClock
from core.errors import Category, Denied, Invalid, NotFound, OverLimit, Retry, TimedOut, Unavailable, Unsupported
from reconciler.engine.cgroup_home import CgroupHome
from reconciler.model.config import GitConfig
from reconciler.model.identity import instance_of
from reconciler.sources.fetchers import git_fetcher
from reconciler.sources.git_access import Access, access
from reconciler.sources.git_faults import Cut, NoSuchRef, Untrusted
from reconciler.sources.repositories import Limits, wanted
from tests.conformance.git_ground import MIB, Ground, failure, files, git_processes
from tests.git_server import Asked, Certificate, HttpGit, SshGit, make_certificate, make_key
from tests.registry import free_port

LOGIN = ("edge", "p/a:s@s w%rd")
SECRET = b"p/a:s@s w%rd"


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def https(ground: Ground, certificate: Certificate) -> Iterator[HttpGit]:
    """A server of the ground's repositories that wants a login."""
    (ground.folder / "served").mkdir()
    with HttpGit(ground.folder / "served", certificate, LOGIN) as served:
        yield served


# ------------------------------------------------------------------------------------------------------ what comes


def test_a_branch_a_tag_and_a_commit_are_fetched_by_their_names(ground: Ground) -> None:
    origin = ground.repository({"a.yaml": "1"})
    first = origin.tip()
    origin.git("tag", "light", first)
    origin.git("-c", "user.name=a", "-c", "user.email=a", "tag", "-a", "-m", "x", "heavy", first)
    second = origin.commit({"a.yaml": "2"})
    other = origin.commit({"a.yaml": "3"}, branch="feature/x", onto=first)
    for ref, commit in (
        ({}, second),
        ({"branch": "main"}, second),
        ({"branch": "feature/x"}, other),
        ({"tag": "light"}, first),
        ({"tag": "heavy"}, first),
        ({"commit": first}, first),
    ):
        assert ground.fetcher(origin, **ref).fetch() == commit


def test_a_commit_that_comes_is_fetched_and_what_was_there_stays(ground: Ground) -> None:
    origin = ground.repository({"a.yaml": "1"})
    fetcher = ground.fetcher(origin)
    first = fetcher.fetch()
    second = origin.commit({"b.yaml": "2"}, "say it\nwith a body")
    assert fetcher.fetch() == fetcher.fetch() == second
    assert files(fetcher, first) == {"a.yaml": b"1"}
    assert files(fetcher, second) == {"b.yaml": b"2"}
    described = fetcher.describe(second)
    assert (described.author, described.subject) == ("Ada <ada@example.org>", "say it with a body")
    assert described.time == origin.clock


def test_a_revision_that_is_not_held_is_not_found(ground: Ground) -> None:
    fetcher = ground.fetcher(ground.repository({"a.yaml": "1"}))
    for revision in ("1" * 40, "main", "--help", "", "HEAD"):
        with pytest.raises(NotFound), fetcher.tree(revision):
            pass
    fetcher.fetch()
    assert not fetcher.held("1" * 40)
    with pytest.raises(NotFound):
        fetcher.describe("1" * 40)


def test_a_login_opens_https_and_a_key_opens_ssh(ground: Ground, https: HttpGit, git_ssh: SshGit) -> None:
    origin = ground.repository({"a.yaml": "1"})
    ca = https.certificate.ca  # type: ignore[union-attr]  # it has one
    secret = {"username": LOGIN[0].encode(), "password": SECRET}
    config = GitConfig.model_validate({"ca": str(ca), "sshKey": str(git_ssh.client)})
    for url, given in ((https.url("nodes.git"), secret), (git_ssh.url(origin.folder), None)):
        what = ground.wanted(url)
        shown = access(what.address, config, given)
        assert ground.fetcher(url, shown).fetch() == origin.tip()
    inline = access(what.address, GitConfig(), {"sshKey": git_ssh.client.read_bytes()})
    assert ground.fetcher(url, inline).fetch() == origin.tip()
    assert ground.leftovers() == []


def test_a_token_is_a_password_and_text_of_an_authority_is_enough(ground: Ground, https: HttpGit) -> None:
    origin = ground.repository({"a.yaml": "1"})
    https.login = ("git", "glpat-token")
    what = ground.wanted(https.url("nodes.git"))
    ca = https.certificate.ca.read_bytes()  # type: ignore[union-attr]  # it has one
    shown = access(what.address, GitConfig(), {"token": b"glpat-token\n", "ca": ca})
    assert ground.fetcher(https.url("nodes.git"), shown).fetch() == origin.tip()


# ----------------------------------------------------------------------------------------------- what is shown to whom


def test_a_secret_is_in_no_argument_no_environment_and_no_file_that_stays(ground: Ground, https: HttpGit) -> None:
    ground.repository({"a.yaml": "1"})
    seen: list[bytes] = []

    def look(_: Asked) -> None:
        for pid in set(git_processes(ground.folder)):
            seen.append(Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes())

    https.before = look
    ca = https.certificate.ca  # type: ignore[union-attr]  # it has one
    fetcher = ground.fetcher(https.url("nodes.git"), Access(LOGIN, ca=ca))
    fetcher.fetch()
    assert len(seen) >= 4
    known = (SECRET, b"p%2Fa%3As%40s%20w%25rd", https.asked[-1].authorization.removeprefix("Basic ").encode())
    for secret in known:
        assert not any(secret in text for text in seen)
        for path in (path for path in ground.folder.rglob("*") if path.is_file()):
            assert secret not in path.read_bytes()
    assert "p/a" not in repr(Access(LOGIN))


def test_while_git_runs_a_secret_lies_in_a_file_for_ourselves_alone(ground: Ground, https: HttpGit) -> None:
    ground.repository({"a.yaml": "1"})
    modes: set[str] = set()

    def look(_: Asked) -> None:
        for path in (*ground.home.private.rglob("*"), ground.home.private):
            modes.add(f"{'d' if path.is_dir() else 'f'}{path.stat().st_mode & 0o777:o}")

    https.before = look
    ground.fetcher(https.url("nodes.git"), Access(LOGIN, ca=https.certificate.ca)).fetch()  # type: ignore[union-attr]
    assert modes == {"d700", "f600"}
    assert ground.leftovers() == []


def test_a_redirect_is_not_followed_and_takes_no_login_along(ground: Ground, git_web: HttpGit) -> None:
    ground.repository({"a.yaml": "1"})
    with HttpGit(ground.folder / "served") as evil:
        git_web.redirect = evil.url("")[:-1]
        error = failure(ground.fetcher(git_web.url("nodes.git"), Access(LOGIN)))
        assert isinstance(error, Invalid)
        assert "another address" in error.message
        assert evil.asked == []


def test_a_login_is_shown_only_when_it_is_asked_for(ground: Ground, git_web: HttpGit) -> None:
    git_web.folder = ground.folder / "served"
    ground.repository({"a.yaml": "1"})
    ground.fetcher(git_web.url("nodes.git"), Access(LOGIN)).fetch()
    assert {asked.authorization for asked in git_web.asked} == {""}


@pytest.mark.parametrize(
    ("url", "secret", "word"),
    [
        ("https://h/x", {"username": b"u"}, "token"),
        ("https://h/x", {"sshKey": b"k"}, "password"),
        ("ssh://h/x", {"password": b"p"}, "sshKey"),
        ("https://h/x", {"password": b"p", "pasword": b"p"}, "pasword"),
        ("https://h/x", {"password": b"two\nlines"}, "one line"),
        ("https://h/x", {"password": b""}, "one line"),
    ],
)
def test_a_secret_that_cannot_be_meant_is_refused(
    ground: Ground, url: str, secret: dict[str, bytes], word: str
) -> None:
    with pytest.raises(Invalid) as refused:
        access(ground.wanted(url).address, GitConfig(), secret)
    assert word in refused.value.message + refused.value.hint()


# ------------------------------------------------------------------------------------------------------- how it fails


def test_a_wrong_login_is_denied(ground: Ground, https: HttpGit, git_ssh: SshGit, tmp_path: Path) -> None:
    origin = ground.repository({"a.yaml": "1"})
    ca = https.certificate.ca  # type: ignore[union-attr]  # it has one
    stranger = make_key(tmp_path / "stranger")
    for url, shown in (
        (https.url("nodes.git"), Access(ca=ca)),
        (https.url("nodes.git"), Access(("edge", "f4lsch"), ca=ca)),
        (git_ssh.url(origin.folder), Access(known_hosts=git_ssh.known_hosts)),
        (git_ssh.url(origin.folder), Access(ssh_key=stranger, known_hosts=git_ssh.known_hosts)),
        (git_ssh.url(origin.folder), Access(ssh_key=b"no key\n", known_hosts=git_ssh.known_hosts)),
    ):
        error = failure(ground.fetcher(url, shown))
        assert (type(error), error.category) == (Denied, Category.DENIED)
        assert "Secret" in error.hint()
        assert "f4lsch" not in error.message


def test_a_server_that_cannot_be_reached_is_tried_again(ground: Ground) -> None:
    port = free_port()
    for url in (f"https://127.0.0.1:{port}/x", f"ssh://127.0.0.1:{port}/x", "https://nothing.invalid/x"):
        error = failure(ground.fetcher(url))
        assert isinstance(error, Unavailable), error
        assert (error.category, error.retry) == (Category.UNAVAILABLE, Retry.BACKOFF)
        assert "cannot be reached" in error.message


@pytest.mark.parametrize(
    ("dates", "message", "hint"),
    [
        ({"end": "20210101000000Z"}, "has expired", "clock"),
        ({"start": "20980101000000Z"}, "is not valid yet", "clock"),
    ],
)
def test_a_certificate_out_of_its_time_is_named_with_the_clock(
    ground: Ground, dates: dict[str, str], message: str, hint: str
) -> None:
    ground.repository({"a.yaml": "1"})
    made = make_certificate(ground.folder / "tls", **dates)
    with HttpGit(ground.folder / "served", made) as served:
        error = failure(ground.fetcher(served.url("nodes.git"), Access(ca=made.ca)))
    assert isinstance(error, Untrusted)
    assert message in error.message
    assert hint in error.hint()
    assert error.retry is Retry.BACKOFF


def test_a_certificate_of_an_unknown_authority_is_refused(ground: Ground, https: HttpGit) -> None:
    ground.repository({"a.yaml": "1"})
    other = make_certificate(ground.folder / "other")
    for shown in (Access(), Access(ca=other.ca)):
        error = failure(ground.fetcher(https.url("nodes.git"), shown))
        assert isinstance(error, Untrusted)
        assert "sources.git.ca" in error.hint()


def test_a_host_key_is_pinned_at_first_sight_and_another_one_is_refused(ground: Ground, tmp_path: Path) -> None:
    origin = ground.repository({"a.yaml": "1"})
    with SshGit(tmp_path / "sshd") as served:
        fetcher = ground.fetcher(served.url(origin.folder), Access(ssh_key=served.client))
        first = fetcher.fetch()
        assert fetcher.fetch() == first
        given = Access(ssh_key=served.client, known_hosts=served.known_hosts.read_bytes())
        served.stop()
        served.new_host_key()
        served.start()
        for shown in (Access(ssh_key=served.client), given):
            error = failure(ground.fetcher(served.url(origin.folder), shown))
            assert isinstance(error, Untrusted)
            assert "host key" in error.message
        assert fetcher.held(first)


def test_an_unknown_host_is_refused_where_known_hosts_are_given(ground: Ground, git_ssh: SshGit) -> None:
    origin = ground.repository({"a.yaml": "1"})
    shown = Access(ssh_key=git_ssh.client, known_hosts=b"example.org ssh-ed25519 AAAA\n")
    assert isinstance(failure(ground.fetcher(git_ssh.url(origin.folder), shown)), Untrusted)


def test_a_branch_that_is_not_there_is_told_with_those_that_are(ground: Ground, git_web: HttpGit) -> None:
    git_web.folder = ground.folder / "served"
    origin = ground.repository({"a.yaml": "1"})
    for i in range(12):
        origin.git("branch", f"b{i:02}", "main")
    error = failure(ground.fetcher(git_web.url("nodes.git"), branch="mian"))
    assert isinstance(error, NoSuchRef)
    assert "has no branch mian" in error.message
    assert "b00, b01" in error.hint()
    assert "and 3 more" in error.hint()
    assert "none" in failure(ground.fetcher(git_web.url("nodes.git"), tag="v1")).hint()


def test_an_empty_repository_is_told_as_such(ground: Ground) -> None:
    origin = ground.repository()
    for ref in ({}, {"branch": "main"}):
        error = failure(ground.fetcher(origin, **ref))
        assert isinstance(error, NoSuchRef)
        assert "is empty" in error.message


def test_a_commit_or_repository_that_is_not_there_is_not_found(
    ground: Ground, git_web: HttpGit, git_ssh: SshGit
) -> None:
    git_web.folder = ground.folder / "served"
    origin = ground.repository({"a.yaml": "1"})
    key = Access(ssh_key=git_ssh.client, known_hosts=git_ssh.known_hosts)
    assert isinstance(failure(ground.fetcher(git_web.url("nodes.git"), commit="1" * 40)), NotFound)
    assert isinstance(failure(ground.fetcher(git_web.url("none.git"))), NotFound)
    assert isinstance(failure(ground.fetcher(git_ssh.url(origin.folder / "none"), key)), NotFound)
    assert isinstance(failure(ground.fetcher(f"file://{origin.folder}/none")), NotFound)


def test_a_range_of_versions_is_not_supported_yet() -> None:
    with pytest.raises(Unsupported):
        wanted({"url": "https://h/x", "ref": {"semver": ">=1"}}, "", allow_file=False)


def test_a_server_that_goes_in_the_middle_is_tried_again(ground: Ground, git_web: HttpGit) -> None:
    git_web.folder = ground.folder / "served"
    origin = ground.repository({"a.yaml": "1"})
    fetcher = ground.fetcher(git_web.url("nodes.git"))
    first = fetcher.fetch()
    origin.commit({"a.yaml": os.urandom(200_000)})
    git_web.cut_after = 100_000
    error = failure(fetcher)
    assert isinstance(error, Cut)
    assert error.retry is Retry.BACKOFF
    assert files(fetcher, first) == {"a.yaml": b"1"}
    git_web.cut_after = None
    assert fetcher.fetch() == origin.tip()
    assert list(ground.copy.rglob("tmp_*")) == []


def test_a_server_that_never_answers_is_left_in_time_and_nothing_runs_on(ground: Ground, git_web: HttpGit) -> None:
    git_web.folder = ground.folder / "served"
    ground.repository({"a.yaml": "1"})
    over = threading.Event()
    git_web.before = lambda _: over.wait(20)
    error = failure(ground.fetcher(git_web.url("nodes.git"), limits=Limits(seconds=1.0)))
    assert isinstance(error, TimedOut)
    assert "timeout" in error.hint()
    settled = SystemClock().monotonic() + 2.0  # what was killed is a zombie until its own parent has ended, too
    while list(git_processes(ground.folder)) and SystemClock().monotonic() < settled:
        pass
    assert list(git_processes(ground.folder)) == []
    assert ground.leftovers() == []
    over.set()


def test_more_bytes_than_the_limit_are_not_taken(ground: Ground) -> None:
    origin = ground.repository({"a.bin": os.urandom(3 * MIB)})
    error = failure(ground.fetcher(origin, limits=Limits(pack=MIB)))
    assert isinstance(error, OverLimit), error
    assert sum(path.stat().st_size for path in ground.home.folder.rglob("*") if path.is_file()) < MIB
    assert ground.fetcher(origin).fetch() == origin.tip()


def test_no_program_but_git_ssh_and_the_shell_that_bounds_them_is_started(ground: Ground, git_ssh: SshGit) -> None:
    origin = ground.repository({"a.yaml": "1"})
    trace = ground.folder / "trace"
    for url in (origin, git_ssh.url(origin.folder)):
        ground.alone(url, "strace", "-f", "-qq", "-e", "trace=execve", "-e", "status=successful", "-o", trace)
        lines = [
            line.split('execve("')[1].split('"')[0] for line in trace.read_text().splitlines() if "execve(" in line
        ]
        programs = {os.path.basename(line) for line in lines[1:]}
        assert "git" in programs
        assert programs <= {"git", "sh", "ssh", "git-upload-pack", "git-remote-https"}, programs


@pytest.mark.root
def test_every_process_of_a_fetch_is_in_the_group_of_the_engines_helpers(ground: Ground, https: HttpGit) -> None:
    origin = ground.repository({"a.yaml": "1"})
    home = CgroupHome(cgroups.hierarchies().tracking, instance_of(str(ground.folder)), SystemClock())
    launcher = home.enter()
    assert launcher.group is not None, home.note
    group = launcher.group
    seen: list[tuple[set[int], set[int]]] = []
    https.before = lambda _: seen.append((set(git_processes(ground.folder)), set(cgroups.members(group))))
    shown = Access(LOGIN, ca=https.certificate.ca)  # type: ignore[union-attr]  # it has one
    try:
        what = ground.wanted(https.url("nodes.git"))
        assert git_fetcher(ground.home, what, shown, launcher, Limits(seconds=30.0)).fetch() == origin.tip()
        assert all(len(working) >= 2 and working <= members for working, members in seen)
        assert cgroups.members(group) == []
    finally:
        home.leave()


def test_a_git_that_would_obey_other_configuration_is_refused(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = ground.repository({"a.yaml": "1"})
    old = ground.folder / "bin" / "git"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho git version 2.31.9\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")
    with pytest.raises(Unsupported) as refused:
        ground.fetcher(origin)
    assert "2.31.9" in refused.value.message


def test_folders_may_have_any_names(tmp_path: Path, certificate: Certificate, git_ssh: SshGit) -> None:
    ground = Ground(tmp_path / "it's a %h folder $HOME; #1")
    origin = ground.repository({"a.yaml": "1"})
    key = git_ssh.client.read_bytes()
    with HttpGit(ground.folder / "served", certificate, LOGIN) as served:
        web = ground.fetcher(served.url("nodes.git"), Access(LOGIN, ca=certificate.ca.read_bytes()))
        assert web.fetch() == origin.tip()
    plain = tmp_path / "plain.git"
    plain.symlink_to(origin.folder)
    for known in (None, git_ssh.known_hosts.read_bytes()):
        assert ground.fetcher(git_ssh.url(plain), Access(ssh_key=key, known_hosts=known)).fetch() == origin.tip()
    assert (ground.home.folder / "known_hosts").exists()
