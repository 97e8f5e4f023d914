"""conmon: the small monitor of one task, which outlives us and writes its exit down.

Rules of this file: conmon is told everything on its command line and answers on one pipe (`_OCI_SYNCPIPE`), with one
line of JSON: the first process, or -1 and what the runtime complained of. Later it listens on the fifo `ctl`.
The runtime's words become errors here, once, at the edge; nobody after this matches on text.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from core import fsio
from core.errors import AgentError, Conflict, Denied, Failed, Invalid, NoSpace, NotFound, TimedOut, Unsupported
from core.process import Launcher
from core.runtime.bundle import Record
from core.values import dataclass

RESIZE: Final = 1
REOPEN_LOG: Final = 2
_MAKING: Final = {b"create", b"restore"}
_MESSAGE: Final = re.compile(r'msg="((?:[^"\\]|\\.)*)"')
_CAUSES: Final[tuple[tuple[re.Pattern[str], type[AgentError], str], ...]] = (
    (re.compile(r"exec: .*(no such file or directory|executable file not found|not a directory)"
                r"|executable (file|path) .* not found|cannot find executable"
                r"|error finding executable .*no such file"), NotFound,
     "The command is not in the image: correct `command`, or the image."),
    (re.compile(r"exec: .*permission denied|exec: .*is a directory|(open|exec(utable file)?) .*: Permission denied"),
     Denied,
     "The command is in the image but is not an executable file for this user."),
    (re.compile(r"(?i)exec format error"), Unsupported, "It is built for another architecture, or has no #! line."),
    (re.compile(r"(?i)no space left on device"), NoSpace, ""),
    (re.compile(r"already exists"), Conflict, ""),
    (re.compile(r"container does not exist|no such container|error opening file .*/status"), NotFound, ""),
    (re.compile(r"not supported when using hostinet"), Unsupported,
     "Run it by a gVisor runtime with `options: {network: none}`: see docs/runtime.md, Checkpoints."),
    (re.compile(r"OOM-killed|memory limit too low"), Invalid, "Raise `resources.memory`."),
    (re.compile(r"error mounting|mountpoint|not a directory"), Invalid,
     "A mount does not fit the image: a file on a folder, a folder on a file, or a source that is not there."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Monitor:
    """How to start a monitor: programs by full path, the runtime's own root, the folder of exit files."""

    program: str
    runtime: str
    runtime_root: Path
    exits: Path
    flags: Sequence[str] = ()
    """What the runtime is told before each of its commands."""

    def command(
        self, id: str, bundle: Path, record: Record, *, image: Path | None = None, options: Sequence[str] = ()
    ) -> list[str]:
        """conmon's command line for a task (conmon(8)). `log` is in the CRI format.

        With `image` the runtime restores the task from there, by these `options`, in place of creating it.
        """
        restoring = [] if image is None else ["--restore", str(image)]
        return [
            self.program,
            *("--cid", id, "--cuuid", id, "--name", id),
            *("--bundle", str(bundle), "--persist-dir", str(bundle), "--exit-dir", str(self.exits)),
            *("--container-pidfile", str(bundle / "pid"), "--conmon-pidfile", str(bundle / "monitor.pid")),
            *("--log-path", f"k8s-file:{record.log}", "--log-size-max", str(record.log_limit), "--no-sync-log"),
            *("--runtime", self.runtime, "--runtime-arg", "--root", "--runtime-arg", str(self.runtime_root)),
            *(word for flag in self.flags for word in ("--runtime-arg", flag)),
            *restoring,
            *(word for option in options for word in ("--runtime-opt", option)),
            "--full-attach",
            *(["--terminal"] if record.terminal else []),
            *(["--stdin"] if record.stdin else []),
        ]


def launch(launcher: Launcher, argv: list[str], bundle: Path, *, timeout: float) -> tuple[int, int]:
    """Start conmon and wait for its answer; returns (first process, monitor). Raises the runtime's complaint."""
    ours, theirs = os.pipe()
    try:
        with open(bundle / "monitor.err", "wb") as err:
            try:
                # In the bundle: conmon drops a file named oom where it stands.
                env = {"_OCI_SYNCPIPE": str(theirs)}
                child = launcher.start(argv, stderr=err, pass_fds=(theirs,), env=env, cwd=str(bundle))
            finally:
                os.close(theirs)
        # conmon forks itself away at once; its answer comes from the fork.
        child.wait()
        answer = _answer(ours, bundle / "monitor.pid", timeout)
    finally:
        os.close(ours)
    first = parse_answer(answer, (bundle / "monitor.err").read_text("utf-8", "replace"))
    return first, int((bundle / "monitor.pid").read_text())


def _answer(fd: int, pidfile: Path, timeout: float) -> bytes:
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLHUP)
    data = b""
    slices = 0.0
    missing = 0
    while not data.endswith(b"\n"):
        if not poller.poll(1000):
            slices += 1
            missing = 0 if _creating(pidfile) else missing + 1
            # A runtime that was killed after it had made the first process leaves a monitor that reads the stderr of
            # that process for a reason, for ever.
            if missing > 1:
                raise Failed("the runtime was killed while it created the task")
            if slices >= timeout:
                raise TimedOut(f"the runtime did not create the task within {timeout:g} s")
            continue
        chunk = os.read(fd, 65536)
        if not chunk:
            break
        data += chunk
    return data


def _creating(pidfile: Path) -> bool:
    """Whether the monitor still has a child that is the runtime, at work on `create` or `restore`."""
    try:
        pid = int(pidfile.read_text())
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, ValueError):
        return True
    for child in children:
        with contextlib.suppress(OSError):  # it ended while we looked
            # crun leaves its own command line to the first process, which is in another pid namespace already.
            ours = os.readlink(f"/proc/{child}/ns/pid") == os.readlink("/proc/self/ns/pid")
            if ours and _MAKING & set(Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")):
                return True
    return False


def parse_answer(answer: bytes, stderr: str) -> int:
    """The first process' number out of conmon's line; raises the error that the line, or its absence, tells of."""
    try:
        said = json.loads(answer.splitlines()[-1], strict=False)
        pid = int(said["pid"])
    except (IndexError, ValueError, KeyError, TypeError):
        raise complaint(stderr.strip() or "the monitor ended before it said anything") from None
    if pid <= 0:
        raise complaint(str(said.get("message") or stderr or "the runtime gave no reason"))
    return pid


def complaint(words: str) -> AgentError:
    """The error that a runtime's words on stderr mean: log lines in text or JSON form, the last one counts most."""
    text = said(words)
    for pattern, kind, advice in _CAUSES:
        if pattern.search(text):
            return kind(text, advice=advice)
    return Failed(text)


def said(words: str) -> str:
    """The plain sentence inside a runtime's log lines."""
    found = _MESSAGE.findall(words)
    if found:
        text = str(found[-1]).encode().decode("unicode_escape", "replace")
    else:
        lines = [line.strip() for line in words.strip().splitlines() if line.strip()]
        text = lines[-1] if lines else "no reason given"
        with contextlib.suppress(ValueError, KeyError, TypeError):  # not a JSON log line: then it is the text itself
            text = str(json.loads(text)["msg"])
    return text.replace("\n", " ")[:1000]


def control(bundle: Path, message: int, first: int = 0, second: int = 0) -> bool:
    """Write one message on the monitor's fifo; False when no monitor listens."""
    try:
        fd = os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # ENOENT, or ENXIO: nobody has it open for reading
        return False
    try:
        os.write(fd, b"%d %d %d\n" % (message, first, second))
    finally:
        os.close(fd)
    return True


def close_stdin(bundle: Path) -> None:
    """Close the task's stdin: the monitor closes it when whoever is attached goes away. Raises `NotFound`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as attached:
        try:
            with fsio.socket_address(bundle / "attach") as address:
                attached.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotFound(f"nobody listens for attachment at {bundle / 'attach'}") from None
        attached.shutdown(socket.SHUT_WR)
