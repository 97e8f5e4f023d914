"""The services of a shim: seventeen calls of `containerd.task.v2` or `v3`, whichever it has, and nine for sandboxes.

Rules of this file: a connection lives as long as its block. A shim that does not know the service of its version gets
the other one. Every call has a limit of time, but for `wait` in the minder.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Protocol

from core.errors import Unsupported
from core.runtime import wire
from core.runtime.shimv2.bootstrap import Address
from core.runtime.shimv2.messages import METHODS, OCI_URL, SANDBOX, SANDBOX_METHODS, TASK
from core.runtime.ttrpc.client import Client

CALL_SECONDS: Final = 10.0
CREATE_SECONDS: Final = 60.0
_FOR_EVER: Final = 0.0


class Pending(Protocol):
    """A call under way, over either transport: see `core.runtime.ttrpc.client.Call`."""

    @property
    def done(self) -> threading.Event: ...

    def result(self, timeout: float) -> bytes: ...

    def cancel(self) -> None: ...


class Transport(Protocol):
    """Unary calls of bytes over one connection: `core.runtime.ttrpc.client.Client` or its like over gRPC."""

    def call(self, service: str, method: str, payload: bytes, timeout: float, /) -> bytes: ...

    def begin(self, service: str, method: str, payload: bytes, timeout: float, /) -> Pending: ...


class TaskService:
    """Calls by name over one connection. `version` is the one the shim said; a fallback is remembered."""

    def __init__(self, client: Transport, version: int) -> None:
        self.client = client
        self._services = [TASK[version - 2], TASK[3 - version]]

    def call(self, method: str, seconds: float = CALL_SECONDS, /, **values: object) -> dict[str, Any]:
        """One call to its end, as names and values of `METHODS`; raises what the shim answered, or `TimedOut`."""
        request, response = METHODS[method]
        payload = wire.encode(request, values)
        for service in list(self._services):
            try:
                said = self.client.call(service, method, payload, seconds)
            except Unsupported:
                if service == self._services[-1]:
                    raise
                continue
            self._services = [service]
            return wire.decode(response, said)
        raise Unsupported(f"the shim has no {method}")

    def begin(self, method: str, **values: object) -> Pending:
        """A call without a limit of time (`Wait`), to a service that is known by then: some other call came before."""
        return self.client.begin(self._services[0], method, wire.encode(METHODS[method][0], values), _FOR_EVER)

    def wait(self, id: str) -> dict[str, Any]:
        """Wait for the end of a task, however long; raises `ConnectionLost` when the shim goes first."""
        self.call("Connect", id=id)
        call = self.begin("Wait", id=id)
        call.done.wait()
        return wire.decode(METHODS["Wait"][1], call.result(CALL_SECONDS))


class SandboxService:
    """The nine calls of `containerd.runtime.sandbox.v1`, over a connection that task calls may use too."""

    def __init__(self, client: Transport) -> None:
        self._client = client

    def call(self, method: str, seconds: float = CALL_SECONDS, /, **values: object) -> dict[str, Any]:
        """One call to its end, as names and values of `SANDBOX_METHODS`; raises what was answered, or `TimedOut`."""
        request, response = SANDBOX_METHODS[method]
        return wire.decode(response, self._client.call(SANDBOX, method, wire.encode(request, values), seconds))


def packed(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """An OCI structure (`Process`, `LinuxResources`) as a shim wants it: JSON in an Any."""
    return {"type_url": OCI_URL + kind, "value": json.dumps(value).encode()}


@contextmanager
def talking(address: Address, seconds: float = 5.0) -> Iterator[TaskService]:
    """A connection for the block; raises `Unavailable`, `NotFound`, `TimedOut` when nobody answers."""
    with connected(address, seconds) as client:
        yield TaskService(client, address.version)


def connected(address: Address, seconds: float = 5.0) -> AbstractContextManager[Transport]:
    """A connection by the protocol that the shim asked for; raises as `talking`."""
    if address.protocol == "grpc":
        # Only where a shim wants it: the library takes as much memory as all the rest of a minder, twice.
        from core.runtime.grpc_client import GrpcClient

        return GrpcClient.connect(address.path, seconds)
    return Client.connect(address.path, seconds)
