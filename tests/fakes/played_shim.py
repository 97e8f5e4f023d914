"""A shim that tests play: it says what it is told to, by either transport, and lets Debian's own shim do the work.

`python -m tests.fakes.played_shim [what it plays] -- [what every shim is given]`. Calls of the task service go on to a
real `containerd-shim-runc-v2` as they are, so that whole suites can be run on a dialect that Debian's shim does not
speak; the sandbox service is played here. What is asked is written to `asked` in the folder, one line a call.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from core.errors import AgentError, Busy, Conflict, NotFound, Unsupported
from core.runtime import wire
from core.runtime.shimv2 import messages
from core.runtime.ttrpc import frames
from core.runtime.ttrpc.client import Client
from core.runtime.ttrpc.frames import Frame, Frames, Type

REAL = "containerd-shim-runc-v2"
FOR_EVER = 1e6
REPOSITORY = Path(__file__).parents[2]

Handler = Callable[[str, str, bytes], bytes]


def write(program: Path, folder: Path, *plays: str) -> Path:
    """A program at `program` that plays so; `folder` (0700) is for its sockets."""
    folder.mkdir(mode=0o700, exist_ok=True)
    words = " ".join(f"'{word}'" for word in ("--folder", str(folder), *plays))
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m tests.fakes.played_shim {words} -- "$@"\n'
    )
    program.chmod(0o755)
    return program


def asked(folder: Path) -> list[str]:
    """The calls so far, as `service/method`."""
    with contextlib.suppress(FileNotFoundError):
        return [line.split(" ")[0] for line in (folder / "asked").read_text().splitlines()]
    return []


def parser() -> argparse.ArgumentParser:
    """What it plays, then what containerd gives to every shim."""
    made = argparse.ArgumentParser(allow_abbrev=False)
    made.add_argument("--folder", type=Path, required=True)
    made.add_argument("--protocol", default="ttrpc", choices=("ttrpc", "grpc"))
    made.add_argument("--says", type=int, default=3, help="the version that it says it has")
    made.add_argument("--has", type=int, default=3, help="the version of its task service")
    made.add_argument("--sandboxes", action="store_true", help="it has the sandbox service")
    made.add_argument("--hangs", default="", help="a method that is never answered")
    made.add_argument("--dies", default="", help="a method at which it ends")
    made.add_argument("--unplaced", action="store_true", help="it names no process of this node as the task's")
    made.add_argument("--garbage", action="store_true", help="it answers with bytes of no protocol")
    made.add_argument("--serve", type=Path)
    for name in ("-namespace", "-address", "-publish-binary", "-id", "-bundle"):
        made.add_argument(name, default="")
    made.add_argument("action")
    return made


class Played:
    """One shim at work, in its bundle."""

    def __init__(self, plays: argparse.Namespace) -> None:
        self.plays = plays
        self.lock = threading.Lock()
        self.real: Client | None = None
        self.sandbox: dict[str, Any] = {}
        self.stopped = threading.Event()
        self.tasks: set[str] = set()

    def handle(self, service: str, method: str, payload: bytes) -> bytes:
        """One call to its end."""
        with open(self.plays.folder / "asked", "a") as out:
            out.write(f"{service}/{method} {payload.hex()}\n")
        if method == self.plays.hangs:
            threading.Event().wait()
        if method == self.plays.dies:
            os._exit(1)
        if service == messages.SANDBOX and self.plays.sandboxes:
            return self.of_sandbox(method, payload)
        if service == messages.TASK[self.plays.has - 2] and method in messages.METHODS:
            return self.of_task(method, payload)
        raise Unsupported(f"unknown service {service} or method {method}")

    # Tasks.

    def of_task(self, method: str, payload: bytes) -> bytes:
        """What is answered here, or by the real shim."""
        if method == "Connect":
            return wire.encode(messages.METHODS["Connect"][1], {"shim_pid": os.getpid(), "version": "played"})
        if method == "Shutdown":
            if not self.sandbox:
                self.leave(payload)
            return b""
        if method == "Create":
            payload = self.created(payload)
        said = self.forward(method, payload)
        return b"" if self.plays.unplaced and method == "Create" else said

    def created(self, payload: bytes) -> bytes:
        """The real shim's state in our folder; the rest as it is."""
        table = messages.METHODS["Create"][0]
        values = wire.decode(table, payload)
        self.tasks.add(values["id"])
        root = wire.encode(messages.RUNC_OPTIONS, {"root": str(self.plays.folder / "runc")})
        values["options"] = {"type_url": messages.RUNC_OPTIONS_URL, "value": root}
        return wire.encode(table, values)

    def forward(self, method: str, payload: bytes) -> bytes:
        """To the real shim, which is started for the first call: by then we are where we belong."""
        with self.lock:
            if self.real is None:
                self.real = Client.connect(Path(self.started()))
        return self.real.begin(messages.TASK[0], method, payload, 0).result(FOR_EVER)

    def started(self) -> str:
        """Where the real shim listens."""
        words = [REAL, "-namespace", self.plays.namespace, "-address", self.plays.address]
        words += ["-publish-binary", "/bin/true", "-id", self.plays.id, "start"]
        said = subprocess.run(words, capture_output=True, text=True, check=True)
        return said.stdout.strip().removeprefix("unix://")

    def leave(self, payload: bytes) -> None:
        """End, and the real shim first; it answers by hanging up."""
        with contextlib.suppress(AgentError):
            if self.real is not None:
                self.real.call(messages.TASK[0], "Shutdown", payload, 2)
        threading.Timer(0.05, os._exit, (0,)).start()

    # The sandbox.

    def of_sandbox(self, method: str, payload: bytes) -> bytes:
        """The nine calls."""
        request, response = messages.SANDBOX_METHODS[method]
        values = wire.decode(request, payload)
        if method == "CreateSandbox":
            if self.sandbox:
                raise Conflict("there is one already")
            self.sandbox = {**values, "state": "SANDBOX_NOTREADY"}
            return b""
        if values["sandbox_id"] != self.sandbox.get("sandbox_id"):
            raise NotFound("no such sandbox")
        return wire.encode(response, getattr(self, method)(values) or {})

    def StartSandbox(self, values: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 # the call's name
        if self.stopped.is_set():
            raise Busy("it was stopped")
        self.sandbox["state"] = "SANDBOX_READY"
        return {"pid": os.getpid(), "created_at": {"seconds": int(time.time())}}

    def Platform(self, values: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"platform": {"os": "linux", "architecture": "amd64"}}

    def StopSandbox(self, values: dict[str, Any]) -> None:  # noqa: N802
        for id in self.tasks:
            kill = wire.encode(messages.METHODS["Kill"][0], {"id": id, "signal": 9, "all": True})
            with contextlib.suppress(AgentError):
                self.forward("Kill", kill)
        self.sandbox["state"] = "SANDBOX_NOTREADY"
        self.stopped.set()

    def WaitSandbox(self, values: dict[str, Any]) -> None:  # noqa: N802
        self.stopped.wait()

    def SandboxStatus(self, values: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"sandbox_id": values["sandbox_id"], "pid": os.getpid(), "state": self.sandbox["state"]}

    def PingSandbox(self, values: dict[str, Any]) -> None:  # noqa: N802
        if self.stopped.is_set():
            raise Busy("it was stopped")

    def ShutdownSandbox(self, values: dict[str, Any]) -> None:  # noqa: N802
        self.leave(wire.encode(messages.METHODS["Shutdown"][0], {"id": values["sandbox_id"], "now": True}))

    def SandboxMetrics(self, values: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        data = {"pids": {"current": len(self.tasks)}, "cpu": {"usage_usec": 1_500_000}, "memory": {"usage": 32 << 20}}
        packed = {"type_url": messages.METRICS_V2_URL, "value": wire.encode(messages.METRICS_V2, data)}
        return {"metrics": {"id": values["sandbox_id"], "data": packed}}


# The transports.


def serve_ttrpc(path: Path, handle: Handler) -> None:
    """Answer each request in a thread of its own, as Go's server does."""
    for connection in connections(path):
        threading.Thread(target=_converse, args=(connection, handle), daemon=True).start()


def connections(path: Path) -> Iterator[socket.socket]:
    """Whoever comes; the socket gets its name when it listens."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.new")
        listener.listen(16)
        os.rename(f"{path}.new", path)
        while True:
            yield listener.accept()[0]


def _converse(connection: socket.socket, handle: Handler) -> None:
    incoming, sending = Frames(), threading.Lock()

    def answer(frame: Frame) -> None:
        asked = wire.decode(frames.REQUEST, frame.data)
        try:
            said = frames.answer(handle(asked["service"], asked["method"], asked["payload"]))
        except AgentError as error:
            said = frames.refusal(error)
        with sending, contextlib.suppress(OSError):
            connection.sendall(Frame(frame.stream, Type.RESPONSE, said).pack())

    with contextlib.suppress(OSError):
        while data := connection.recv(1 << 16):
            for frame in incoming.feed(data):
                threading.Thread(target=answer, args=(frame,), daemon=True).start()


def serve_grpc(path: Path, handle: Handler) -> Any:
    """The same by the library's own server, which stands until it is stopped."""
    import grpc

    def answer(details: Any) -> Any:
        service, method = details.method.lstrip("/").split("/")

        def call(payload: bytes, context: Any) -> bytes:
            try:
                return handle(service, method, payload)
            except AgentError as error:
                status = wire.decode(frames.RESPONSE, frames.refusal(error))["status"]
                codes = {code.value[0]: code for code in grpc.StatusCode}
                context.abort(codes[status["code"]], status["message"])
                raise

        return grpc.unary_unary_rpc_method_handler(call)

    class Generic(grpc.GenericRpcHandler):  # type: ignore[misc]  # the library has no types
        def service(self, details: Any) -> Any:
            return answer(details)

    server = grpc.server(ThreadPoolExecutor(16), handlers=(Generic(),))
    server.add_insecure_port(f"unix:{path}")
    server.start()
    return server


def garbage(path: Path) -> None:
    """Answer whatever comes with bytes that are nothing."""
    for connection in connections(path):
        with contextlib.suppress(OSError):  # whoever came has only looked
            connection.sendall(b"\xff" * 64)
            connection.recv(1)
        connection.close()


def main(words: list[str]) -> None:
    """As a shim does: `start` says where the server listens that it has started; `delete` cleans up after it."""
    plays = parser().parse_args([word for word in words if word != "--"])
    path = plays.folder / f"{hashlib.sha256(plays.id.encode()).hexdigest()[:16]}.sock"
    if plays.action == "delete":
        with open(plays.folder / "asked", "a") as out:
            out.write(f"delete/{plays.id}\n")
        bundle, given = plays.bundle, words[words.index("--") + 1 :]
        subprocess.run([REAL, *given], cwd=bundle, check=False, capture_output=True)
        path.unlink(missing_ok=True)
        subprocess.run(
            ["runc", "--root", f"{plays.folder}/runc/{plays.namespace}", "delete", "--force", plays.id],
            check=False,
            capture_output=True,
        )
    elif plays.serve:
        serve(plays, path)
    else:
        path.unlink(missing_ok=True)
        with open("log", "ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "tests.fakes.played_shim", "--serve", str(path), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not path.exists():
            time.sleep(0.005)
        print(json.dumps({"version": plays.says, "address": f"unix://{path}", "protocol": plays.protocol}), end="")


def serve(plays: argparse.Namespace, path: Path) -> None:
    """The server's process."""
    played = Played(plays)
    os.umask(0o077)
    if plays.garbage:
        garbage(path)
    elif plays.protocol == "ttrpc":
        serve_ttrpc(path, played.handle)
    else:
        serve_grpc(path, played.handle).wait_for_termination()


if __name__ == "__main__":
    main(sys.argv[1:])
