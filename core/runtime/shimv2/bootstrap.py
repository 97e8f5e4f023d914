"""Starting a shim, and where it answers (containerd, docs/runtime-v2.md): its flags, environment and three dialects.

`<shim> -namespace NS -address A -publish-binary P -id ID start`, with the bundle as working folder, makes a shim that
goes on and says on stdout where it listens: as a plain address (up to containerd 1.6), as JSON (1.7 to 2.2), or as a
`BootstrapResult` in protobuf (from 2.3 on). `… -bundle B delete` cleans up after one that is dead.

Rules of this file: what a shim says is not believed before it was looked at: a known protocol and version, and a
socket file that no other user can open or replace. An abstract socket is refused (CVE-2020-15257).
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from core import fsio
from core.errors import Denied, Failed, NotFound, TimedOut, Unsupported
from core.process import Launcher, find
from core.runtime import wire
from core.runtime.conmon import complaint
from core.runtime.shimv2.messages import BOOTSTRAP_RESULT
from core.values import dataclass

START_SECONDS: Final = 20.0
_DELETE_SECONDS: Final = 20.0
_MOST_SAID: Final = 64 << 10
_VERSIONS: Final = (2, 3)
PROTOCOLS: Final = ("ttrpc", "grpc")
_UNIX: Final = "unix://"
_RECORD: Final = "bootstrap.json"
_LOOK: Final = "See that {} is a shim of containerd's, that it can run here, and what its configuration says."
_PRIVATE: Final = "Its folder and socket must belong to us or root, and nobody else may write there."
EVENTS: Final = "events"
"""Our own socket for the shim's events, in the bundle. A shim stands in its bundle: the short name always fits."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a shim listens: `path` of its socket, `version` of its task service (2, 3), `protocol` (ttrpc, grpc)."""

    path: Path
    version: int = 2
    protocol: str = "ttrpc"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who we are to shims: `namespace` keeps instances apart, `address` too (shims name their socket by both)."""

    program: str
    namespace: str
    address: str

    def command(self, id: str, *words: str) -> list[str]:
        """The command line. `-publish-binary` is for shims without ttrpc; ours have events or do without."""
        return [
            find(self.program, "containerd"),
            *("-namespace", self.namespace, "-address", self.address, "-publish-binary", "/bin/true"),
            *("-id", id, *words),
        ]

    @property
    def environment(self) -> Mapping[str, str]:
        """What a shim finds in its environment beside the launcher's own."""
        return {
            "GOMAXPROCS": "2",
            "MAX_SHIM_VERSION": "3",
            "NAMESPACE": self.namespace,
            "TTRPC_ADDRESS": EVENTS,
            "GRPC_ADDRESS": self.address,
        }


def start(launcher: Launcher, caller: Caller, id: str, bundle: Path, seconds: float = START_SECONDS) -> Address:
    """Start the shim of a task, which has so many seconds for it, and keep its address in the bundle.

    Raises the shim's own complaint, `TimedOut`, `MissingTool`, `Failed` (it said nonsense), `Unsupported`, `Denied`.
    """
    # A file, not a fifo: the shim would wait for somebody to read a fifo, and stop when nobody does any more.
    (bundle / "log").touch(mode=0o600)
    argv = caller.command(id, "start")
    try:
        done = launcher.run(
            argv, cwd=str(bundle), env=caller.environment, timeout=seconds, limit=_MOST_SAID, descendants=True
        )
    except TimedOut:
        words = f"the shim {caller.program} did not say within {seconds:g} s where it listens"
        raise TimedOut(words, advice=_LOOK.format(caller.program)) from None
    if done.code != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace") or f"the shim ended with {done.code}"
        error = complaint(said)
        error.advice = error.advice or _LOOK.format(caller.program)
        raise error
    address = checked(parse(done.stdout))
    keep(address, bundle)
    return address


def keep(address: Address, bundle: Path) -> None:
    """Write down in a bundle where its shim listens, as containerd does."""
    record = {"version": address.version, "address": f"{_UNIX}{address.path}", "protocol": address.protocol}
    fsio.write_atomic(bundle / _RECORD, json.dumps(record).encode(), durable=False)


def delete(launcher: Launcher, caller: Caller, id: str, bundle: Path) -> None:
    """Clean up after a shim that is dead: runtime state, mounts. Raises its complaint."""
    argv = caller.command(id, "-bundle", str(bundle), "delete")
    done = launcher.run(argv, cwd=str(bundle), env=caller.environment, timeout=_DELETE_SECONDS, limit=_MOST_SAID)
    if done.code != 0:
        raise complaint(done.stderr.decode("utf-8", "replace") or f"the shim ended with {done.code}")


def kept(bundle: Path) -> Address:
    """The address that a bundle keeps: our record, or the `address` file of old shims; raises `NotFound`."""
    for name in (_RECORD, "address"):
        with contextlib.suppress(FileNotFoundError):
            return parse(fsio.read_bounded(bundle / name, _MOST_SAID))
    raise NotFound(f"no shim was started for {bundle.name}")


def has_said(bundle: Path) -> bool:
    """Whether a bundle keeps an address, readable or not: its shim may have been asked for something."""
    return any(os.path.lexists(bundle / name) for name in (_RECORD, "address"))


def parse(said: bytes) -> Address:
    """What a shim said, in whichever dialect; raises `Failed` for nonsense, `Unsupported`.

    The dialects differ in their first byte: JSON has a brace, an address a letter, and a message of ours neither.
    """
    text = said.strip()
    if text[:1] == b"{":
        return _address(_from_json(text))
    if text[:1].isalpha() and b"://" in text:
        return _address({"address": text.decode("utf-8", "replace"), "version": 2, "protocol": "ttrpc"})
    try:
        return _address(wire.decode(BOOTSTRAP_RESULT, said))
    except wire.Malformed:
        raise _nonsense(said) from None


def _from_json(text: bytes) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        raise _nonsense(text) from None
    return found


def _address(said: Mapping[str, Any]) -> Address:
    version, protocol, address = said.get("version"), said.get("protocol") or "ttrpc", said.get("address")
    if not isinstance(version, int) or not isinstance(address, str) or not address:
        raise _nonsense(str(dict(said)).encode())
    if version not in _VERSIONS:
        advice = "Use an older version of the shim, or a newer one of this agent."
        raise Unsupported(f"the shim speaks version {version} of the shim API; this agent knows 2 and 3", advice=advice)
    if protocol not in PROTOCOLS:
        raise Unsupported(
            f"the shim wants to be spoken to by {str(protocol)[:40]!r}",
            advice="This agent speaks ttrpc and grpc to shims.",
        )
    path = address.removeprefix(_UNIX)
    if not address.startswith(f"{_UNIX}/") or "\0" in path:
        raise Unsupported(
            f"the shim listens at {address[:200]!r}", advice="This agent reaches shims by the path of a Unix socket."
        )
    return Address(Path(path), version, str(protocol))


def _nonsense(said: bytes) -> Failed:
    return Failed(
        f"the shim said {said[:80]!r} where its address was due", advice="Is `path` really a containerd shim?"
    )


def checked(address: Address) -> Address:
    """`address`, when no other user can open or replace its socket; raises `Denied`, `NotFound`."""
    try:
        there, folder = address.path.lstat(), address.path.parent.stat()
    except FileNotFoundError:
        raise NotFound(f"the shim's socket {address.path} is not there") from None
    if not stat.S_ISSOCK(there.st_mode):
        raise Denied(f"{address.path}, which the shim calls its socket, is none", advice=_PRIVATE)
    ours = {0, os.geteuid()}
    if {there.st_uid, folder.st_uid} - ours or folder.st_mode & 0o022:
        raise Denied(f"others can replace the shim's socket {address.path}", advice=_PRIVATE)
    if there.st_mode & 0o022 and folder.st_mode & 0o011:
        raise Denied(f"others can speak to the shim at {address.path}", advice=_PRIVATE)
    return address
