"""`scripts/demo`, which is what `make demo` runs: it ends by itself, says what it does, and leaves nothing."""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests import leftovers
from tests.registry import missing_tools

DEMO: Final = Path(__file__).resolve().parents[2] / "scripts" / "demo"
PORTS: Final = (5005, 8088)
STEPS: Final = (
    "Two images from Debian packages",
    "From manifests to running containers",
    "Converged: 7 objects, 7 created",
    "The agent, which keeps it so",
    "container/web ",
    "Hello from web 1",
    "Kill the web server's process",
    "the page was there again after",
    "Hello from web 1",
    "Change a manifest",
    "± spec.image",
    "Converged: 7 objects, 1 replaced",
    "Hello from web 2",
    "Delete everything",
    "Deleted: 7 objects",
    "0 processes, 0 mounts, 0 namespaces, 0 cgroups, 0 files",
    "The demo is over",
)
AS_NOBODY: Final = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
# The interpreter of the tests may lie in a folder of root's: a stranger that may read everything stands for a user.
READING: Final = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search")


def is_taken(port: int) -> bool:
    """Whether somebody listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def free_ports() -> Iterator[None]:
    """The demo's ports are free, before and after."""
    if taken := [port for port in PORTS if is_taken(port)]:
        pytest.skip(f"the demo's ports are taken on this machine: {taken}")
    yield
    assert not [port for port in PORTS if is_taken(port)]


@pytest.fixture
def tools() -> None:
    """What the demo needs beside the project."""
    names = ("runc", "conmon", "curl")
    if missing := [*missing_tools(), *(name for name in names if shutil.which(name) is None)]:
        pytest.skip(f"not installed: {', '.join(missing)}")


def place_of(output: str) -> leftovers.Place:
    """The folder that a run of the demo named."""
    found = re.search(r"export RECONCILER_ROOT=(/tmp/rc-demo-\w+)/root", output)
    assert found, output
    return leftovers.Place(Path(found[1]))


def assert_in_order(output: str, words: tuple[str, ...]) -> None:
    """Every text is there, one after the other."""
    rest = output
    for word in words:
        assert word in rest, f"{word!r} is not where it should be in:\n{output}"
        rest = rest.split(word, 1)[1]


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.usefixtures("free_ports", "tools")
def test_the_demo_shows_everything_leaves_nothing_and_works_twice_in_a_row() -> None:
    for _ in range(2):
        done = subprocess.run([DEMO], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert_in_order(done.stdout, STEPS)
        place = place_of(done.stdout)
        assert leftovers.settle(place, 5.0) == []
        assert not place.folder.exists()


@pytest.mark.root
@pytest.mark.usefixtures("free_ports", "tools")
def test_an_interrupted_demo_leaves_nothing_either() -> None:
    command = [DEMO]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as demo:
        assert demo.stdout is not None
        seen = ""
        for line in demo.stdout:
            seen += line
            if "reconciler get all" in line:
                os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait(30) == 130, seen
    assert leftovers.settle(place_of(seen), 5.0) == []
    assert not place_of(seen).folder.exists()


@pytest.mark.root
@pytest.mark.usefixtures("free_ports", "tools")
def test_a_taken_port_is_named_before_anything_is_begun() -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", PORTS[1]))
        squatter.listen()
        done = subprocess.run([DEMO], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "127.0.0.1:8088, which the web server of the demo needs, is taken" in done.stdout


@pytest.mark.root
def test_without_root_the_demo_shows_what_works_and_says_what_is_missing() -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("not installed: setpriv (util-linux)")
    command = [*AS_NOBODY, *READING, DEMO]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_in_order(
        done.stdout, ("not root", "missing  user", "hello from a module", "Plan ", "7 create", "The demo is over")
    )
    assert "Traceback" not in done.stdout + done.stderr
