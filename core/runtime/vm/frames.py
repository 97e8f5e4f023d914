"""What host and guest say to each other over one virtio-serial port: frames, and the calls that they carry.

This file is on both sides; it uses nothing but the standard library. A frame is a head of nine bytes, big-endian:
length of the payload (u32, at most `LARGEST`), stream (u32), kind (u8); then the payload.

    CALL    host → guest   stream: number of the call, chosen by the host, never 0, not reused   JSON {"call": NAME, …}
    DONE    guest → host   stream: that number                                                   JSON, the result
    FAILED  guest → host   stream: that number        JSON {"category": one of `core.errors.Category`, "message": …}
    DATA    both           stream: number of a stdio stream, chosen by the host in the call that opens it
    END     both           stream: that stream has no more
    MORE    both           stream: the receiver has taken so many bytes (u32): the sender may send as many again
    EVENT   guest → host   stream: 0                                        JSON {"event": NAME, …}

Flow control: a sender has at most `WINDOW` bytes of a stream on their way; what the workload writes beyond that waits
in its pipe. So a task that floods its stdout, or one whose reader is slow, holds up neither calls nor its neighbours.

Calls, with their parameters and results (all paths are the guest's):

    hello     {version}                                    → {version, kernel, memory}       first of all, `VERSION`
    network   {hostname, interfaces: [{mac, addresses: [CIDR], routes: [{to, via}], mtu}]}
              the machine has one network card at most: it is given that MAC; `lo` is up in any case
    put       {path, mode, uid, gid, data: BASE64}         a file below /run/carried; folders are made; whole by rename
              with `folder: true`: a folder with that mode and owner
              with `more: true`: only the beginning of it, of which nothing is seen before the last `append`
    append    {path, data: BASE64}                         what follows; with `more: true` not the end yet
    create    {id, spec, root: SERIAL, layer: SERIAL, shared: [TAG], stdin, stdout, stderr: STREAM|0, terminal}
              mounts the disks of those serials (root: EROFS, read-only, may be that of several tasks; layer: ext4, for
              upper and work), makes the bundle, and the task up to, not including, its own program          → {pid}
    start     {id}
    exec      {id, process, stdin, stdout, stderr: STREAM|0}   process as in OCI config.json         → {exec}  a number
              with `copy: {way, path, name}` in place of `process`: entries of `core.runtime.trees`. `out`: what is at
              the path, on stdout; `in`: from stdin, one entry, into the folder at the path, else called so; `merge`:
              from stdin, into the folder at the path; of both END or FAILED on stdout. The task need not run
    signal    {id, signal, everyone} | {exec, signal}
    resize    {id | exec, columns, rows}
    pids      {id}                                         → {pids}
    pause, resume   {id}
    update    {id, resources}                              OCI `linux.resources`
    stats     {id}                                         → {cpu_seconds, memory, pids, oom_kills}
    delete    {id}                                         kills what runs, unmounts, so that its disks can be unplugged
    close     {id | exec}                                  its stdin is at its end
    reach     {port, path: TEXT|null, timeout}             a TCP or HTTP probe from inside   → {ok, message}
    ping      {}                                           → {}
    shutdown  {}                                           everything ends, disks are synced, the machine goes off

Places in the guest: /run/carried, what was `put`; /run/shared/TAG, the virtiofs of that tag (mounted when a task first
asks for it); /run/sandbox/shm, a tmpfs that is all tasks' /dev/shm. The `spec` comes as the guest needs it: mounts from
guest paths, `linux.cgroupsPath` is `/tasks/ID`, namespaces that the sandbox shares are left out (the
guest's own are meant).

Events: `exit {id | exec, code, oom}` after the last byte of its streams; a guest that cannot go on says
`fault {message}`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Final

VERSION: Final = 1
PORT: Final = "org.reconciler.guest.0"
"""The name of the virtio-serial port (/dev/virtio-ports/NAME where udev is; here found by /sys/class/virtio-ports)."""
LARGEST: Final = 1 << 20
WINDOW: Final = 256 << 10
_HEAD: Final = struct.Struct(">IIB")


class Kind(IntEnum):
    """What a frame is; see above."""

    CALL = 1
    DONE = 2
    FAILED = 3
    DATA = 4
    END = 5
    MORE = 6
    EVENT = 7


class Frame:
    """One frame. Written out, because the guest has no use for what a tuple or a dataclass would have it import."""

    __slots__ = ("kind", "payload", "stream")

    def __init__(self, kind: Kind, stream: int, payload: bytes = b"") -> None:
        self.kind = kind
        self.stream = stream
        self.payload = payload

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and self._all() == other._all()

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return f"Frame{self._all()}"

    def _all(self) -> tuple[Kind, int, bytes]:
        return self.kind, self.stream, self.payload

    def json(self) -> dict[str, Any]:
        """The payload as an object; raises `Nonsense`."""
        try:
            value = json.loads(self.payload)
        except (ValueError, RecursionError) as error:
            raise Nonsense(f"a frame of kind {self.kind.name} without JSON") from error
        if not isinstance(value, dict):
            raise Nonsense(f"a frame of kind {self.kind.name} without an object")
        return value

    def credit(self) -> int:
        """How many bytes a MORE frame is about; raises `Nonsense`."""
        if len(self.payload) != 4:
            raise Nonsense(f"a count of {len(self.payload)} bytes")
        return int.from_bytes(self.payload, "big")


class Nonsense(Exception):
    """The other side does not speak this protocol: the stream is of no more use."""


def encode(kind: Kind, stream: int, payload: bytes = b"") -> bytes:
    """A frame as bytes."""
    return _HEAD.pack(len(payload), stream, kind) + payload


def said(kind: Kind, stream: int, value: object) -> bytes:
    """A frame whose payload is JSON."""
    return encode(kind, stream, json.dumps(value, separators=(",", ":")).encode())


def more(stream: int, count: int) -> bytes:
    """A MORE frame."""
    return encode(Kind.MORE, stream, count.to_bytes(4, "big"))


class Decoder:
    """Frames out of pieces of a stream, however it was cut."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now; raises `Nonsense` for a length or a kind that cannot be."""
        self._held += data
        while len(self._held) >= _HEAD.size:
            length, stream, kind = _HEAD.unpack_from(self._held)
            if length > LARGEST or kind not in Kind.__members__.values():
                raise Nonsense(f"a frame of {length} bytes and kind {kind}")
            if len(self._held) < _HEAD.size + length:
                return
            payload = bytes(self._held[_HEAD.size : _HEAD.size + length])
            del self._held[: _HEAD.size + length]
            yield Frame(Kind(kind), stream, payload)
