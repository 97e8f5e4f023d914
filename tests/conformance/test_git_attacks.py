"""Hostile repositories, addresses and surroundings: each row of the reference's table for git, with what must happen.

A canary is a file that appears when something of the attacker's was run; there is none after any of these tests.
"""

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from core.errors import AgentError, Denied, Invalid, NotFound, OverLimit
from core.process import Launcher
from reconciler.model.kinds.git import GitAddress
from reconciler.sources.fetchers import git_fetcher
from reconciler.sources.git_access import Access
from reconciler.sources.repositories import Limits, Ref, Wanted, wanted
from reconciler.sources.revisions import MOST_ENTRIES
from tests.conformance.git_ground import MIB, Ground, failure, files
from tests.git_server import HttpGit, Link, Module, Repository, git

MOST_MEMORY_KIB = 64 << 10


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A path that must not be there when the test is over."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "something of the attacker's was run"


def script(path: Path, canary: Path) -> Path:
    """A program that sets the canary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\ntouch {canary}\n")
    path.chmod(0o755)
    return path


# --------------------------------------------------------------------------------------------- addresses and names


@pytest.mark.parametrize(
    "url",
    [
        "--upload-pack=touch {canary}",
        "-oProxyCommand=touch {canary}",
        "ssh://-oProxyCommand=touch${{IFS}}{canary}/y",
        "ext::sh -c touch% {canary}",
        "fd::7",
    ],
)
def test_an_address_that_would_run_something_is_refused_and_git_would_not_obey_it_either(
    ground: Ground, canary: Path, url: str
) -> None:
    text = url.format(canary=canary)
    with pytest.raises(Invalid):
        wanted({"url": text}, "", allow_file=True)
    for scheme in ("https", "ssh", "file"):
        what = Wanted(GitAddress(text, scheme, "h"))  # as if our own look at it had missed something
        with pytest.raises(AgentError):
            git_fetcher(ground.home, what, Access(), Launcher(), Limits(seconds=20.0)).fetch()


def test_a_transport_that_the_address_does_not_name_is_not_used(ground: Ground, canary: Path) -> None:
    origin = ground.repository({"a.yaml": "1"})
    for url, scheme in ((f"file://{origin.folder}", "https"), (f"ext::touch {canary}", "ssh")):
        what = Wanted(GitAddress(url, scheme, "h"))  # type: ignore[arg-type]  # of the test
        error = failure(git_fetcher(ground.home, what, Access(), Launcher(), Limits()))
        assert "not allowed" in error.message


@pytest.mark.parametrize("name", ["--output={canary}", "-d", "a..b", "a b", "x:refs/heads/y", "+x"])
def test_a_branch_that_is_no_name_is_refused_and_git_would_not_obey_it_either(
    ground: Ground, canary: Path, name: str
) -> None:
    origin = ground.repository({"a.yaml": "1"})
    text = name.format(canary=canary)
    if text != "+x":  # a name that git takes, and that no branch here has
        with pytest.raises(Invalid):
            ground.wanted(origin, branch=text)
    what = replace(ground.wanted(origin), ref=Ref("branch", text))
    with pytest.raises(AgentError):
        git_fetcher(ground.home, what, Access(), Launcher(), Limits()).fetch()


def test_a_source_out_of_another_source_names_no_repository_of_this_node(ground: Ground) -> None:
    origin = ground.repository({"a.yaml": "1"})
    with pytest.raises(Denied):
        wanted({"url": f"file://{origin.folder}"}, "", allow_file=False)
    assert wanted({"url": f"file://{origin.folder}"}, "", allow_file=True)


# ------------------------------------------------------------------------------------------------ what a commit holds


@pytest.mark.parametrize(
    "modules",
    [
        '[submodule "x"]\n\tpath = m\n\turl = -u./payload\n',
        '[submodule "x"]\n\tpath = "m\r"\n\turl = ext::touch {canary}\n\tupdate = !touch {canary}\n',
        '[submodule "../../hooks"]\n\tpath = link/m\n\turl = file://{canary}\n',
    ],
)
def test_submodules_are_never_fetched(ground: Ground, canary: Path, modules: str) -> None:
    content = {".gitmodules": modules.format(canary=canary), "m": Module(), "link": Link("..")}
    fetcher = ground.fetcher(ground.repository(content))
    with fetcher.tree(fetcher.fetch()) as tree:
        assert [entry.kind for entry in tree.entries()] == ["file", "link", "module"]
    assert not (ground.copy / "modules").exists()


def test_a_link_that_leaves_the_source_is_refused_by_its_path(ground: Ground) -> None:
    content = {"app.yaml": Link("/etc/shadow"), "dir": Link(".."), "up/x.yaml": Link("../../../etc/shadow")}
    fetcher = ground.fetcher(ground.repository(content))
    with fetcher.tree(fetcher.fetch()) as tree:
        for entry in tree.entries():
            assert entry.kind == "link"
            with pytest.raises(Invalid) as refused:
                tree.find(entry.path)
            assert entry.path in refused.value.message
            with pytest.raises(Invalid):
                tree.read(entry)


@pytest.mark.parametrize("name", [b"..", b".", b".git", b".GIT", b".Git"])
def test_a_name_that_no_checkout_could_have_is_refused_by_its_path(ground: Ground, name: bytes) -> None:
    origin = ground.repository()
    file = ("100644", b"config", origin.blob(b"[core]\n\tfsmonitor = touch /tmp/pwn\n"))
    inner = origin.raw_tree([file])
    origin.commit_tree(origin.raw_tree([("40000", name, inner)]))
    fetcher = ground.fetcher(origin)
    with fetcher.tree(fetcher.fetch()) as tree, pytest.raises(Invalid) as refused:
        tree.entries()
    assert f"{name.decode()}/config" in refused.value.message


def test_a_name_twice_in_one_folder_is_refused(ground: Ground) -> None:
    origin = ground.repository()
    entries = [("100644", b"a.yaml", origin.blob(b"1")), ("100644", b"a.yaml", origin.blob(b"2"))]
    origin.commit_tree(origin.raw_tree(entries))
    fetcher = ground.fetcher(origin)
    with fetcher.tree(fetcher.fetch()) as tree, pytest.raises(Invalid):
        tree.entries()


def test_strange_names_are_shown_without_harm(ground: Ground) -> None:
    origin = ground.repository()
    names = [b"a\x1b[31m.yaml", b"b\n.yaml", b"\xff\xfe.yaml"]
    origin.commit_tree(origin.raw_tree([("100644", name, origin.blob(b"x")) for name in names]))
    fetcher = ground.fetcher(origin)
    with fetcher.tree(fetcher.fetch()) as tree:
        found = [entry.path for entry in tree.entries()]
    assert [name.encode() for name in found] == [b"\\xff\\xfe.yaml", b"a\x1b[31m.yaml", b"b\n.yaml"]


# ---------------------------------------------------------------------------------------- configuration, hooks, homes


def test_no_hook_and_no_configuration_of_the_other_side_is_obeyed(ground: Ground, canary: Path) -> None:
    origin = ground.repository({"a.yaml": "1", ".gitattributes": "* filter=evil\n"})
    payload = script(ground.folder / "payload", canary)
    for hook in ("post-checkout", "reference-transaction", "pre-receive", "update", "post-update", "upload-pack"):
        script(origin.folder / "hooks" / hook, canary)
    extra = origin.folder / "extra"
    extra.write_text(
        f'[core]\n\tsshCommand = {payload}\n\tgitProxy = {payload}\n[filter "evil"]\n\tsmudge = {payload}\n'
    )
    for key in ("core.fsmonitor", "core.sshCommand", "uploadpack.packObjectsHook", "core.pager", "diff.external"):
        origin.git("config", key, str(payload))
    origin.git("config", "include.path", str(extra))
    fetcher = ground.fetcher(origin)
    assert files(fetcher, fetcher.fetch())["a.yaml"] == b"1"
    assert not (ground.copy / "hooks").exists()


def test_hooks_and_configuration_slipped_into_our_copy_are_not_obeyed(ground: Ground, canary: Path) -> None:
    origin = ground.repository({"a.yaml": "1"})
    fetcher = ground.fetcher(origin)
    fetcher.fetch()
    payload = script(ground.folder / "payload", canary)
    for hook in ("reference-transaction", "post-checkout", "pre-auto-gc"):
        script(ground.copy / "hooks" / hook, canary)
    for key in ("core.fsmonitor", "core.sshCommand", "core.gitProxy", "core.alternateRefsCommand"):
        git("config", "--file", ground.copy / "config", key, str(payload))
    git("config", "--file", ground.copy / "config", "core.hooksPath", str(ground.copy / "hooks"))
    second = origin.commit({"a.yaml": "2"})
    assert fetcher.fetch() == second
    assert files(fetcher, second) == {"a.yaml": b"2"}
    assert "core.fsmonitor" not in (ground.copy / "config").read_text()


def test_nothing_of_our_own_home_or_environment_reaches_git(
    ground: Ground, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = ground.repository({"a.yaml": "1"})
    payload = script(ground.folder / "payload", canary)
    home = ground.folder / "home"
    home.mkdir()
    evil = f"[core]\n\tsshCommand = {payload}\n\tfsmonitor = {payload}\n\thooksPath = {home}\n"
    (home / ".gitconfig").write_text(evil + f'[url "ext::{payload}"]\n\tinsteadOf = file://\n')
    script(home / "reference-transaction", canary)
    variables = {
        "HOME": str(home),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.sshCommand",
        "GIT_CONFIG_VALUE_0": str(payload),
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_SSH_COMMAND": str(payload),
        "GIT_ASKPASS": str(payload),
        "GIT_EXEC_PATH": str(home),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(home),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    fetcher = ground.fetcher(origin)
    assert files(fetcher, fetcher.fetch()) == {"a.yaml": b"1"}
    failure(ground.fetcher("ssh://127.0.0.1:1/x"))


# --------------------------------------------------------------------------------------------------- history rewritten


def test_a_rewritten_history_is_seen_and_the_old_one_stays_readable(ground: Ground) -> None:
    origin = ground.repository({"a.yaml": "1"})
    fetcher = ground.fetcher(origin)
    first = fetcher.fetch()
    second = origin.commit({"a.yaml": "2"})
    assert fetcher.fetch() == second
    assert fetcher.descends(second, first)
    assert fetcher.descends(second, second)
    rewritten = origin.commit({"a.yaml": "3"}, onto=None)
    assert fetcher.fetch() == rewritten
    assert not fetcher.descends(rewritten, second)
    assert not fetcher.descends(first, second)
    assert files(fetcher, second) == {"a.yaml": b"2"}


def test_behind_the_end_of_a_shallow_server_nothing_is_known_to_descend(ground: Ground) -> None:
    full = ground.repository({"a.yaml": "1"}, "full.git")
    first = full.tip()
    second = full.commit({"a.yaml": "2"})
    third = full.commit({"a.yaml": "3"})
    shallow = ground.folder / "served" / "shallow.git"
    git("clone", "--quiet", "--bare", "--depth=2", f"file://{full.folder}", shallow)
    fetcher = ground.fetcher(Repository(shallow))
    assert fetcher.fetch() == third
    assert fetcher.descends(third, second)
    assert not fetcher.descends(third, first)
    assert files(fetcher, third) == {"a.yaml": b"3"}


def test_a_commit_that_went_from_the_server_is_not_found_and_the_held_one_stays(
    ground: Ground, git_web: HttpGit
) -> None:
    git_web.folder = ground.folder / "served"
    origin = ground.repository({"a.yaml": "1"})
    fetcher = ground.fetcher(git_web.url("nodes.git"))
    first = fetcher.fetch()
    second = origin.commit({"a.yaml": "2"})
    (origin.folder / "objects" / second[:2] / second[2:]).unlink()
    failure(fetcher)
    assert files(fetcher, first) == {"a.yaml": b"1"}


def test_an_emptied_repository_and_a_deleted_branch_leave_what_is_held(ground: Ground) -> None:
    origin = ground.repository({"a.yaml": "1"})
    fetcher = ground.fetcher(origin, branch="main")
    first = fetcher.fetch()
    origin.commit({"keep": ""}, branch="other")
    origin.git("update-ref", "-d", "refs/heads/main")
    assert "It has: other" in failure(fetcher).hint()
    origin.git("update-ref", "-d", "refs/heads/other")
    assert "is empty" in failure(fetcher).message
    assert files(fetcher, first) == {"a.yaml": b"1"}
    emptied = origin.commit({})
    assert fetcher.fetch() == emptied
    with fetcher.tree(emptied) as tree:
        assert tree.entries() == []


# -------------------------------------------------------------------------------------------------------------- bombs


def measured(ground: Ground, url: str | Repository) -> tuple[str, int]:
    """What a fetch with all reading came to, in a process of its own, and by how many KiB that grew at most."""
    done = ground.alone(url)
    assert done.returncode == 0, done.stderr[-2000:]
    said, grown = done.stdout.split()
    return said, int(grown)


def test_a_large_file_in_a_small_pack_is_never_inflated_into_the_agent(ground: Ground) -> None:
    origin = ground.repository()
    packed, id = zeros(128 * MIB)
    serve_pack(origin, [packed])
    origin.commit_tree(origin.raw_tree([("100644", b"a.yaml", id)]))
    said, grown = measured(ground, origin)
    assert said == "OverLimit"
    assert grown < MOST_MEMORY_KIB


def test_a_delta_that_makes_ten_gibibytes_of_a_kilobyte_is_refused(ground: Ground) -> None:
    base = b"\0" * (16 * MIB - 1)
    base_id = hashlib.sha1(b"blob %d\0" % len(base) + base).digest()
    size = len(base) * 640
    delta = varint(len(base)) + varint(size) + (b"\xf0\xff\xff\xff") * 640
    pack = [packed_object(3, base), packed_object(7, delta, base_id)]
    tree = b"100644 a.yaml\0" + b"\1" * 20
    tree_id = hashlib.sha1(b"tree %d\0" % len(tree) + tree).hexdigest()
    who = "A <a@b> 1700000000 +0000"
    commit = f"tree {tree_id}\nauthor {who}\ncommitter {who}\n\nx\n".encode()
    tip = hashlib.sha1(b"commit %d\0" % len(commit) + commit).hexdigest()
    with PackServer(tip, whole_pack([packed_object(1, commit), packed_object(2, tree), *pack])) as url:
        said, grown = measured(ground, url)
    assert said == "OverLimit"
    assert grown < MOST_MEMORY_KIB


def test_a_chain_of_eight_thousand_deltas_is_read_or_refused_within_bounds(ground: Ground) -> None:
    origin = ground.repository()
    text = os.urandom(2000).hex()
    blobs = ((i + 1, f"{text}\n{i}\n") for i in range(8000))
    stream = "".join(f"blob\nmark :{mark}\ndata {len(content)}\n{content}\n" for mark, content in blobs)
    last = "commit refs/heads/main\ncommitter A <a@b> 1700000000 +0000\ndata 1\nx\nM 100644 :1 a\nM 100644 :8000 b\n"
    origin.git("fast-import", "--quiet", "--depth=8000", stdin=(stream + last).encode())
    said, grown = measured(ground, origin)
    assert said in (origin.tip(), "OverLimit")
    assert grown < MOST_MEMORY_KIB


def test_a_million_names_are_refused_before_they_are_counted(ground: Ground) -> None:
    origin = ground.repository()
    blob = origin.blob(b"x")
    origin.commit_tree(origin.raw_tree([("100644", b"%07d" % i, blob) for i in range(1_000_000)]))
    said, grown = measured(ground, origin)
    assert said == "OverLimit"
    assert grown < MOST_MEMORY_KIB


def test_trees_of_trees_that_make_ten_billion_files_are_refused(ground: Ground) -> None:
    origin = ground.repository()
    mode, below = "100644", origin.blob(b"x")
    for _ in range(10):
        below = origin.raw_tree([(mode, b"d%d" % i, below) for i in range(10)])
        mode = "40000"
    origin.commit_tree(below)
    said, grown = measured(ground, origin)
    assert said == "OverLimit"
    assert grown < MOST_MEMORY_KIB


def test_as_many_names_as_are_allowed_are_listed(ground: Ground) -> None:
    origin = ground.repository()
    blob = origin.blob(b"x")
    origin.commit_tree(origin.raw_tree([("100644", b"%06d" % i, blob) for i in range(MOST_ENTRIES)]))
    fetcher = ground.fetcher(origin)
    with fetcher.tree(fetcher.fetch()) as tree:
        assert len(tree.entries()) == MOST_ENTRIES
    origin.commit_tree(origin.raw_tree([("100644", b"%06d" % i, blob) for i in range(MOST_ENTRIES + 1)]))
    with fetcher.tree(fetcher.fetch()) as tree, pytest.raises(OverLimit):
        tree.entries()


def test_a_commit_of_many_words_is_described_in_few(ground: Ground) -> None:
    origin = ground.repository({"a.yaml": "1"})
    tip = origin.commit({"a.yaml": "2"}, "x" * MIB)
    fetcher = ground.fetcher(origin)
    assert fetcher.fetch() == tip
    assert len(fetcher.describe(tip).subject) == 500
    with pytest.raises(NotFound):
        fetcher.describe("--output=/tmp/x")


# ------------------------------------------------------------------------------------------------- packs made by hand


def varint(number: int) -> bytes:
    """A size in a delta's head: 7 bits a byte, the lowest first."""
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def object_head(kind: int, size: int) -> bytes:
    """An object's head in a pack."""
    first = kind << 4 | size & 15
    size >>= 4
    return bytes([first | (128 if size else 0)]) + (varint(size) if size else b"")


def packed_object(kind: int, data: bytes, base: bytes = b"") -> bytes:
    """An object in a pack: 1 commit, 2 tree, 3 blob, 7 delta to the object `base`."""
    return object_head(kind, len(data)) + base + zlib.compress(data)


def zeros(size: int) -> tuple[bytes, str]:
    """A blob of zeros, packed, and its id; it is never whole in memory."""
    part = b"\0" * MIB
    packer, digest = zlib.compressobj(1), hashlib.sha1(b"blob %d\0" % size)
    out = []
    for _ in range(size // MIB):
        out.append(packer.compress(part))
        digest.update(part)
    return object_head(3, size) + b"".join(out) + packer.flush(), digest.hexdigest()


def whole_pack(objects: list[bytes]) -> bytes:
    """A pack file."""
    data = b"PACK" + struct.pack(">II", 2, len(objects)) + b"".join(objects)
    return data + hashlib.sha1(data).digest()


def serve_pack(origin: Repository, objects: list[bytes]) -> None:
    """Puts a pack into a repository."""
    origin.git("index-pack", "--stdin", "--threads=1", stdin=whole_pack(objects))


class PackServer:
    """Speaks just enough of git's protocol (version 0) to hand out one pack for one branch."""

    def __init__(self, tip: str, pack: bytes) -> None:
        served = self
        self.tip, self.pack = tip, pack

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                head = f"{served.tip} HEAD\0ofs-delta\n".encode(), f"{served.tip} refs/heads/main\n".encode()
                body = b"001e# service=git-upload-pack\n0000" + b"".join(b"%04x" % (len(h) + 4) + h for h in head)
                self._reply("application/x-git-upload-pack-advertisement", body + b"0000")

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._reply("application/x-git-upload-pack-result", b"0008NAK\n" + served.pack)

            def _reply(self, kind: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/bomb.git"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
