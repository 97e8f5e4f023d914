"""Starting the minder of a task: before the task is created, and with a word to it when it is."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from core.errors import TimedOut
from core.process import Launcher
from core.runtime.bundle import Record
from core.runtime.conmon import complaint

FIFOS: Final = ("stdout", "stderr", "stdin")
_SECONDS: Final = 20.0
_MOST_DIGITS: Final = 20


def command(bundle: Path, exits: Path, record: Record) -> list[str]:
    """The command line of a minder: an isolated interpreter that knows our packages and runs no site start-up."""
    start = f"import sys; sys.path[:0] = {_paths()!r}; "
    start += "from core.runtime.shimv2.minder import main; main(*sys.argv[1:])"
    words = (str(bundle), str(exits), record.cgroup, str(record.log), str(record.log_limit))
    return [sys.executable, "-I", "-S", "-c", start, *words]


def _paths() -> list[str]:
    """Where it finds us, and what it needs for a shim that wants gRPC."""
    found = find_spec("grpc")
    library = [] if found is None or found.origin is None else [str(Path(found.origin).parents[1])]
    return list(dict.fromkeys((str(Path(__file__).parents[3]), *library)))


@contextlib.contextmanager
def minded(launcher: Launcher, bundle: Path, exits: Path, record: Record) -> Iterator[Callable[[], int]]:
    """A minder that begins while the block starts the shim; what is yielded waits until it is ready: its number.

    The block creates the task after that. If it fails, the minder ends. The wait raises `TimedOut`, or its complaint.
    """
    with contextlib.ExitStack() as left:
        theirs, ours = os.pipe()
        said, saying = os.pipe()
        left.callback(os.close, said)
        with open(bundle / "monitor.err", "wb") as err, open(theirs, "rb") as word, open(saying, "wb") as out:
            child = launcher.start(command(bundle, exits, record), stdin=word, stdout=out, stderr=err, cwd=str(bundle))
        left.callback(child.wait)  # it forks itself away as soon as it can
        left.callback(os.close, ours)
        yield lambda: _number(said, bundle)
        # From here on whoever deletes the task ends its minder, whether it was recorded or not.
        os.write(ours, b"!")


def _number(said: int, bundle: Path) -> int:
    poller = select.poll()
    poller.register(said, select.POLLIN)
    if not poller.poll(_SECONDS * 1000):
        raise TimedOut(f"the minder was not ready within {_SECONDS:g} s")
    if not (line := os.read(said, _MOST_DIGITS)):
        raise complaint((bundle / "monitor.err").read_text("utf-8", "replace") or "the minder ended at once")
    return int(line)
