"""A git repository as a source: a bare copy on the node, fetched by git itself and read from its object store.

Rules of this file: git's library (GitPython) starts git by our `Launcher` only, in the helpers' group, in an
environment of our own, within bounds that the kernel keeps. There is no worktree: nothing of a repository is ever
checked out, and no code of it is run. What is read is checked against its id. A copy that is damaged is replaced by a
new one, made aside; until that is there the old one stays, for what can still be read from it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final

import git
from git.db import GitCmdObjectDB

from core import fsio
from core.errors import AgentError, Failed, NotFound, TimedOut, Unavailable, from_os_error
from core.process import Launcher
from core.values import dataclass
from reconciler.model.kinds.git import parse_commit
from reconciler.model.problems import Wrong
from reconciler.sources.git_access import OPTIONS, READING, Access, bounded, certificate_fault, environment
from reconciler.sources.git_faults import (
    MISSING_REF,
    Cut,
    Damaged,
    Untrusted,
    distrusted,
    empty,
    no_such_ref,
    over_limit,
    refusal,
    words,
)
from reconciler.sources.git_tree import GitTree, Objects
from reconciler.sources.placed import Differs, place
from reconciler.sources.repositories import Home, Limits, Wanted
from reconciler.sources.revisions import Description, Tree

_TIP: Final = "refs/fetched/tip"
_HELD: Final = "refs/held/"
_HEAD: Final = b"ref: refs/heads/none\n"
_CONFIG: Final = b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
_MARK: Final = "damaged"
_OUTPUT: Final = 24 << 20
_MOST_PACKS: Final = 20


@dataclass(frozen=True, slots=True)
class Commands:
    """How git is started: the program, who starts it, and within which bounds."""

    program: str
    launcher: Launcher
    limits: Limits


class _Ended(Exception):
    """A git that ended with a code other than 0; `words` are its stderr, or what killed it."""

    def __init__(self, code: int, stderr: bytes) -> None:
        super().__init__(code)
        killed = f"\ngit died of signal {-code}" if code < 0 else ""
        self.words = stderr.decode("utf-8", "replace") + killed


class BoundedGit(git.Git):
    """GitPython's way to run git, with its one door to processes replaced by the `Launcher`."""

    def __init__(self, folder: Path, commands: Commands, env: Mapping[str, str] = READING) -> None:
        super().__init__(folder)
        self._commands = commands
        self._env = {**env, "GIT_DIR": str(folder)}
        self._persistent_git_options = list(OPTIONS)
        self.GIT_PYTHON_GIT_EXECUTABLE = commands.program

    def execute(  # type: ignore[override]  # of its many forms only the two that are used here
        self, command: list[str], istream: int | None = None, *, as_process: bool = False, **_: object
    ) -> Any:
        """Run `command` and return its stdout (bytes); raises `_Ended`, `TimedOut`. With `as_process`: start
        it with pipes, for who talks to it.
        """
        limits = self._commands.limits
        file = limits.pack if self._writes(command) else _OUTPUT
        argv = bounded(command, memory=limits.memory, file=file, cpu=limits.cpu)
        if as_process:
            child = self._commands.launcher.start(argv, stdin=istream, stdout=istream, cwd="/", env=self._env)
            return self.AutoInterrupt(child, command)
        result = self._commands.launcher.run(argv, timeout=limits.seconds, cwd="/", limit=_OUTPUT, env=self._env)
        if result.code != 0:
            raise _Ended(result.code, result.stderr)
        return result.stdout

    def ask(self, command: str, *arguments: str) -> bytes:
        """The stdout of a git command; raises as `execute` does."""
        said = self._call_process(command, *arguments)
        return said if isinstance(said, bytes) else b""

    def _writes(self, command: list[str]) -> bool:
        return any(word in command for word in ("fetch", "repack"))


class GitFetcher:
    """See `Fetcher`. `home.folder` holds `git` (the copy), `lock`, and `known_hosts` (keys pinned at first sight)."""

    def __init__(self, home: Home, what: Wanted, shown: Access, commands: Commands) -> None:
        self._home = home
        self._what = what
        self._shown = shown
        self._commands = commands
        self._where = what.address.url
        self._copy = home.folder / "git"

    def fetch(self) -> str:
        """See `Fetcher.fetch`. The errors are those of `git_faults`, and `TimedOut`."""
        with self._alone():
            fsio.sweep_staging(self._home.folder)
            fsio.sweep_staging(self._home.private)
            if _mend(self._copy):
                try:
                    return self._into(self._copy)
                except (Cut, Damaged, Failed) as error:  # what git says of a damaged copy is not always known to us
                    if isinstance(error, Cut) and self._whole():
                        raise
            return self._anew()

    def _whole(self) -> bool:
        """Whether all commits and trees that the copy should hold are there."""
        return self._answers("rev-list", "--objects", "--quiet", "--all", "--")

    def held(self, revision: str) -> bool:
        """See `Fetcher.held`: the commit and its tree are there."""
        return self._answers("cat-file", "-e", f"{_checked(revision)}^{{tree}}")

    def descends(self, revision: str, ancestor: str) -> bool:
        """See `Fetcher.descends`. All of history is held but where the server itself has only the end of it."""
        return self._answers("merge-base", "--is-ancestor", _checked(ancestor), _checked(revision))

    @contextlib.contextmanager
    def tree(self, revision: str) -> Iterator[Tree]:
        """See `Fetcher.tree`. What turns out damaged is marked, so that the next `fetch` begins anew."""
        if not self.held(revision):
            if (self._copy / _HELD / revision).exists():
                self._mark()
            raise _not_held(self._where, revision)
        run = self._git()
        try:
            yield GitTree(_Store(run, self._copy), revision, self._what.path, self._where)
        except Damaged:
            self._mark()
            raise
        finally:
            run.clear_cache()

    def describe(self, revision: str) -> Description:
        """See `Fetcher.describe`."""
        form = "--format=%an <%ae>%x00%ct%x00%s"
        try:
            said = self._git().ask("log", "-1", "--no-show-signature", "--no-notes", form, _checked(revision), "--")
        except _Ended:
            raise _not_held(self._where, revision) from None
        author, time, subject = [part[:500] for part in said.decode("utf-8", "replace").rstrip("\n").split("\0", 2)]
        return Description(author, float(time or 0), subject)

    def keep(self, revisions: Collection[str]) -> None:
        """See `Fetcher.keep`. Now and then it packs the copy anew. Raises `Failed` where that fails: harmless."""
        if not self._copy.is_dir():
            return
        with self._alone():
            run = self._git()
            try:
                names = run.ask("for-each-ref", "--format=%(refname)", _HELD).decode().split()
                tip = self._tip(run)
                for name in names:
                    if name.removeprefix(_HELD) not in {*revisions, tip}:
                        run.ask("update-ref", "-d", name)
                if len(list((self._copy / "objects/pack").glob("*.pack"))) > _MOST_PACKS:
                    run.ask("repack", "-a", "-d", "-q")
            except _Ended as error:
                raise Failed(f"tidying the copy of {self._where}: {words(error.words)}") from error

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else changes the copy inside the block; what the disk refuses there becomes an `AgentError`."""
        try:
            fsio.make_private(self._home.folder)
            with fsio.locked(self._home.folder / "lock"):
                yield
        except OSError as error:
            raise from_os_error(error, f"keeping a copy of {self._where}") from error

    def _mark(self) -> None:
        fsio.write_atomic(self._copy / _MARK, b"")

    def _git(self) -> BoundedGit:
        return BoundedGit(self._copy, self._commands)

    def _answers(self, command: str, *arguments: str) -> bool:
        """Whether a command that reads the copy ends with 0."""
        if not self._copy.is_dir():
            return False
        try:
            self._git().ask(command, *arguments)
        except _Ended:
            return False
        return True

    def _anew(self) -> str:
        """Make a new copy aside and put it in the old one's place; when that fails the old one stays."""
        with fsio.staging(self._home.folder, "git") as work:
            BoundedGit(work, self._commands).ask("init", "--quiet", "--bare", "--template=", str(work))
            _mend(work)
            commit = self._into(work)
            if self._copy.exists():
                with fsio.staging(self._home.folder, "old") as old:
                    self._copy.rename(old / "git")
                    fsio.publish(work, self._copy)
            else:
                fsio.publish(work, self._copy)
        return commit

    def _into(self, copy: Path) -> str:
        """Fetch what is wanted into `copy`, and return its commit."""
        _sweep(copy)
        address = self._what.address
        with environment(self._home.private, self._home.folder / "known_hosts", address, self._shown) as env:
            run = BoundedGit(copy, self._commands, env)
            try:
                run.ask(
                    *(
                        "fetch",
                        "--quiet",
                        "--no-tags",
                        "--no-write-fetch-head",
                        "--no-recurse-submodules",
                        "--update-shallow",
                    ),
                    *("--no-auto-maintenance", "--force", "--refmap=", "--", self._where),
                    f"+{self._what.ref.remote}:{_TIP}",
                )
            except _Ended as error:
                raise self._explained(run, copy, error.words) from None
            except TimedOut:
                seconds = self._commands.limits.seconds
                raise TimedOut(
                    f"{self._where}: fetching did not end within {seconds:g} s",
                    advice="Raise sources.git.timeout in the configuration, or make the repository smaller.",
                ) from None
        run = BoundedGit(copy, self._commands)
        try:
            commit = self._tip(run)
            run.ask("cat-file", "-e", f"{commit}^{{tree}}")
            if not (copy / _HELD / commit).exists():
                run.ask("update-ref", f"{_HELD}{commit}", commit)
        except _Ended as error:
            raise Damaged(f"the copy of {self._where} cannot be read: {words(error.words)}") from None
        return commit

    def _tip(self, run: BoundedGit) -> str:
        found = run.ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{_TIP}^{{commit}}")
        return found.decode().strip()

    def _explained(self, run: BoundedGit, copy: Path, stderr: str) -> AgentError:
        """The error for a fetch that failed, after another look at what git does not say."""
        if MISSING_REF.search(stderr):
            return self._missing(run)
        error = refusal(self._where, stderr)
        if isinstance(error, Cut) and self._full(copy):
            return over_limit(self._where, "")
        if isinstance(error, Untrusted) and self._what.address.scheme == "https":
            return distrusted(self._where, certificate_fault(self._what.address, self._shown.ca)) or error
        return error

    def _full(self, copy: Path) -> bool:
        """Whether the pack that was being written is as large as it may be: git does not say that this ended it."""
        most = self._commands.limits.pack >> 9 << 9
        return any(path.stat().st_size >= most for path in copy.glob("objects/pack/tmp_pack_*"))

    def _missing(self, run: BoundedGit) -> AgentError:
        kind = "--tags" if self._what.ref.kind == "tag" else "--heads"
        try:
            said = run.ask("ls-remote", "--quiet", "--refs", kind, "--", self._where)
        except (_Ended, TimedOut):
            return Unavailable(f"{self._where} went away in the middle")
        lines = [line.partition("\t")[2] for line in said.decode("utf-8", "replace").splitlines()]
        names = [name.split("/", 2)[2] for name in lines if name.count("/") >= 2 and name.isprintable()]
        if not names and kind == "--heads":
            return empty(self._where)
        return no_such_ref(self._where, str(self._what.ref), names)


@dataclass(slots=True)
class _Store(Objects):
    """The copy's objects, by GitPython: lists by `ls-tree`, bytes by one `cat-file` that stays for the block."""

    run: BoundedGit
    copy: Path
    database: GitCmdObjectDB = field(init=False)

    def __post_init__(self) -> None:
        self.database = GitCmdObjectDB(str(self.copy / "objects"), self.run)

    def root(self, commit: str) -> str:
        """See `Objects`."""
        return self._asked("rev-parse", "--verify", "--end-of-options", f"{commit}^{{tree}}").decode().strip()

    def listing(self, tree: str, *, deep: bool) -> bytes:
        """See `Objects`."""
        return self._asked("ls-tree", "-l", "-z", *(["-r"] if deep else []), tree)

    def blob(self, id: str, size: int) -> bytes:
        """See `Objects`."""
        try:
            stream = self.database.stream(bytes.fromhex(id))
            data: bytes | None = stream.read(size) if stream.size == size and stream.type == b"blob" else None
        except (ValueError, OSError, EOFError) as error:
            raise Damaged(f"object {id} cannot be read: {words(str(error))}") from None
        if data is None or hashlib.sha1(b"blob %d\0" % size + data, usedforsecurity=False).hexdigest() != id:
            raise Damaged(f"object {id} is not what its name says")
        return data

    def place(self, id: str, size: int) -> str:
        """See `Objects`."""
        try:
            stream = self.database.stream(bytes.fromhex(id))
            if stream.size == size and stream.type == b"blob":
                return str(place(self.copy.parent, id, size, stream.read))
        except (ValueError, EOFError, Differs) as error:
            raise Damaged(f"object {id} cannot be read: {words(str(error))}") from None
        raise Damaged(f"object {id} is not what its name says")

    def _asked(self, command: str, *arguments: str) -> bytes:
        try:
            return self.run.ask(command, *arguments)
        except _Ended as error:
            failed = refusal(str(self.copy), error.words)
            raise failed if not isinstance(failed, Failed | NotFound) else Damaged(failed.message) from None


def _checked(revision: str) -> str:
    try:
        return parse_commit(revision)
    except Wrong:
        raise NotFound(f"{revision[:60]!r} is not a commit's id") from None


def _not_held(where: str, revision: str) -> NotFound:
    return NotFound(f"{where}: commit {revision} is not on this node", advice="Fetch the Source again.")


def _mend(copy: Path) -> bool:
    """Give a copy that is there the two files that never change; False when there is none that could be used."""
    if not (copy / "objects").is_dir() or (copy / _MARK).exists():
        return False
    for name, content in (("HEAD", _HEAD), ("config", _CONFIG)):
        path = copy / name
        if not path.is_file() or path.read_bytes() != content:
            fsio.write_atomic(path, content)
    for name in ("refs", "objects/pack", "objects/info"):
        (copy / name).mkdir(parents=True, exist_ok=True)
    return True


def _sweep(copy: Path) -> None:
    """Remove what a killed git left half-made: nobody else is at it, since we hold the lock."""
    for pattern in ("objects/pack/tmp_*", "objects/pack/.tmp-*", "objects/??/tmp_*", "*.lock", "refs/**/*.lock"):
        for path in copy.glob(pattern):
            fsio.remove_tree(path)
