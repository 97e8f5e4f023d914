"""Fixtures of the whole suite, the order of its floors, and the universal checker after each test that used a node."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests import git_server, leftovers
from tests.figures import Figure, Figures
from tests.git_server import HttpGit, SshGit
from tests.registry import Registry, missing_tools, push_all

ORDER: Final = ("unit", "conformance", "kernel", "property", "golden", "crash", "e2e", "bench", "soak")
STOP_SECONDS: Final = 15.0
SETTLE_SECONDS: Final = 2.0
COMMAND: Final = Path(sys.executable).with_name("reconciler")


def floor_of(path: Path) -> int:
    """Where a test file runs: the floors' own test first, then in the order of ORDER."""
    parts = path.relative_to(Path(__file__).parent).parts
    return ORDER.index(parts[0]) + 1 if parts[0] in ORDER else 0


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--figures FOLDER`: where figures for the page of promises are recorded."""
    parser.addoption("--figures", metavar="FOLDER", help="Record the figures that tests print (see tests/figures.py).")


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Records a figure of this test: `figure("slowest start", 1.2, "s")`."""
    folder = request.config.getoption("--figures")
    return Figures(request.node.nodeid.partition("[")[0], Path(folder) if folder else None)


def pytest_configure(config: pytest.Config) -> None:
    """Unmounts what a killed run left in pytest's own folder, which pytest would fail to remove."""
    if config.getoption("basetemp"):  # the folder is another, and who works in pytest's own goes on there
        return
    folder = f"{tempfile.gettempdir()}/pytest-of-"
    for mount in reversed(leftovers.all_mounts()):
        if mount.target.startswith(folder):
            leftovers.retried(partial(subprocess.run, ["umount", "--lazy", mount.target], check=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs cheap and telling tests before dear ones, and says why those that need root cannot run."""
    items.sort(key=lambda item: floor_of(item.path))
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root") or "node" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.skip(reason="needs root"))


@dataclass(slots=True)
class Node:
    """A node of its own in a short folder (socket paths are limited), driven by the real command line."""

    place: leftovers.Place
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    """What every command's environment has beside ours."""
    before: tuple[str, ...] = ()
    """Words before those of what is spawned: a program that becomes the command, such as unshare."""

    @property
    def root(self) -> Path:
        """The node's `--root`."""
        return self.place.root

    @property
    def state(self) -> Path:
        """The node's `--state`."""
        return self.place.state

    @property
    def instance(self) -> str:
        """The mark on the node's names that are global on the machine."""
        return self.place.instance

    def arguments(self, *words: str | Path) -> list[str]:
        """The command line of `reconciler WORDS` on this node."""
        return [str(COMMAND), "--root", str(self.root), "--state", str(self.state), *map(str, words)]

    def cli(
        self, *words: str | Path, stdin: str = "", timeout: float = 60, env: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a command to its end, whatever its exit code; raises TimeoutExpired after `timeout` seconds."""
        return subprocess.run(
            self.arguments(*words),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, **self.env, **(env or {})},
        )

    def spawn(self, *words: str | Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Starts a command (an agent, say) with its output in `NAME.log` of the node's folder; ends with the test."""
        log = self.place.folder / f"{Path(str(words[0])).name}.log"
        with log.open("ab") as sink:
            child = subprocess.Popen(
                [*self.before, *self.arguments(*words)],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.env, **(env or {})},
            )
        self.running.append(child)
        return child

    def stop(self) -> None:
        """Ends what `spawn` started and still runs: TERM first, KILL after 15 seconds."""
        for child in self.running:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        for child in self.running:
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.running.clear()


@pytest.fixture
def node() -> Iterator[Node]:
    """A node; when the test is over nothing of it may be left on the machine, or the test fails with the list."""
    fresh = Node(leftovers.Place(Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))))
    try:
        yield fresh
        fresh.stop()
        left = leftovers.settle(fresh.place, SETTLE_SECONDS)
    finally:
        leftovers.clean(fresh.place)
    if left:
        pytest.fail("left over on the machine:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(scope="session")
def make_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[tuple[str, str] | None], Registry]]:
    """Starts empty registries, with basic auth when given a login; all are stopped when the session ends."""
    if missing := missing_tools():
        pytest.skip(f"not installed: {', '.join(missing)}")
    started: list[Registry] = []

    def make(login: tuple[str, str] | None = None) -> Registry:
        registry = Registry(tmp_path_factory.mktemp("registry"), login)
        started.append(registry)
        return registry.start()

    yield make
    for registry in started:
        registry.stop()


@pytest.fixture(scope="session")
def registry(make_registry: Callable[..., Registry]) -> Registry:
    """One registry for the session that holds `busybox`, `web` and `web2`, each as tag `latest`; tests only read it."""
    made = make_registry()
    push_all(made, ["busybox", "web", "web2"])
    return made


@pytest.fixture(scope="session")
def big_image(registry: Registry) -> str:
    """The reference of `debian-big` in the session's registry."""
    if os.geteuid() != 0:
        pytest.skip("needs root: debian-big is made with debootstrap")
    push_all(registry, ["debian-big"])
    return f"{registry.host}/debian-big:latest"


@pytest.fixture(scope="session")
def git_ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshGit]:
    """One sshd for the session, which lets in one key and runs what git asks for; tests leave it running."""
    if missing := git_server.missing_tools():
        pytest.skip(f"not installed: {', '.join(missing)}")
    with SshGit(tmp_path_factory.mktemp("ssh")) as served:
        yield served


@pytest.fixture
def git_web(tmp_path: Path) -> Iterator[HttpGit]:
    """A web server for the repositories that a test makes below its `folder`."""
    if missing := git_server.missing_tools():
        pytest.skip(f"not installed: {', '.join(missing)}")
    folder = tmp_path / "served"
    folder.mkdir()
    with HttpGit(folder) as served:
        yield served
