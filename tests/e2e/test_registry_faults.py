"""Registries that fail, told in numbers: how often one is asked, how much is fetched, who is held up."""

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.content.store import ContentStore
from core.digest import Digest
from core.errors import AgentError
from core.process import Launcher
from core.transfer import manifests, platform, reference
from core.transfer.manners import CROWD
from core.transfer.ports import Descriptor
from core.transfer.pull import pull
from reconciler.engine.remotes import Remotes, TransferSettings
from tests.fakes.hostile_http import HostileServer, Reply, Request
from tests.fakes.images import Image

AMD64 = platform.parse("linux/amd64")
THREADS = 16
"""As many as the engine has for images."""


def remotes() -> Remotes:
    return Remotes(TransferSettings(), Launcher(), SystemClock(), {})


def try_to_resolve(source: Remotes, host: str, name: str, errors: list[AgentError]) -> None:
    try:
        with source.open(reference.parse(f"{host}/{name}:1"), {}) as remote:
            remote.resolve()
    except AgentError as error:
        errors.append(error)


@pytest.mark.parametrize("status", [500, 429])
def test_a_registry_that_fails_is_asked_once_a_second_at_most_however_many_images_want_it(status: int) -> None:
    source, errors, stop = remotes(), [], threading.Event()  # type: ignore[var-annotated]  # errors of its own class

    def want(number: int) -> None:
        while not stop.is_set():
            try_to_resolve(source, server.host, f"app{number}", errors)
            stop.wait(0.05)

    replies = {f"/v2/app{number}/manifests/1": Reply(status, {"Retry-After": "1"}) for number in range(THREADS)}
    with HostileServer(replies) as server:
        threads = [threading.Thread(target=want, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        stop.wait(4.0)
        stop.set()
        for thread in threads:
            thread.join(10)
        times = [request.at for request in server.asked]
    begun = CROWD  # before the first answer nobody knows that it fails
    assert len(errors) > THREADS
    assert CROWD < len(times) <= begun + (times[-1] - times[0]) + 1
    later = times[begun:]
    assert all(after - before >= 0.95 for before, after in itertools.pairwise(later))


@pytest.mark.parametrize("header", [False, True], ids=["at-all", "with-a-byte"])
def test_a_registry_that_never_answers_holds_up_a_few_threads_and_not_all(header: bool) -> None:
    held, errors, source = threading.Event(), [], remotes()  # type: ignore[var-annotated]  # errors of its own class

    def silent() -> Iterator[bytes]:
        held.wait(25)
        yield b"a layer"

    class Silent(HostileServer):
        def reply_to(self, request: Request) -> Reply | None:
            if header:
                return Reply(200, {"Content-Length": "7"}, silent)
            held.wait(25)
            return None

    def fetch(number: int) -> None:
        try:
            with source.open(reference.parse(f"{server.host}/app{number}:1"), {}) as remote:
                list(remote.blob(Descriptor("x", Digest.of(b"a layer"), 7)))
        except AgentError as error:
            errors.append(error)

    with Silent() as server:
        threads = [threading.Thread(target=fetch, args=(number,), daemon=True) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 10
        while sum(thread.is_alive() for thread in threads) > CROWD and time.monotonic() < deadline:
            held.wait(0.05)
        assert sum(thread.is_alive() for thread in threads) == CROWD
        assert len(server.asked) == CROWD
        assert len(errors) == THREADS - CROWD
        assert all(error.seconds >= 1.0 for error in errors)
        held.set()
        for thread in threads:
            thread.join(15)


def breaking(image: Image, *, ranges: bool) -> HostileServer:
    """Holds `image` as app:1; each blob's connection ends after 100 KiB. `ranges`: it can go on from there."""
    cut = 100 << 10

    class Broken(HostileServer):
        def reply_to(self, request: Request) -> Reply | None:
            name = request.path.rpartition("/")[2]
            data = next((data for digest, data in image.blobs().items() if str(digest) == name), None)
            if data is None or "/blobs/" not in request.path:
                return None
            start = int((request.range or "bytes=0-")[6:-1]) if ranges else 0
            headers = {"Content-Length": str(len(data) - start), "Connection": "close"}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return Reply(206 if start else 200, headers, lambda: [data[start : start + cut]])

    document = Reply(200, {"Content-Type": manifests.OCI_MANIFEST}, image.manifest)
    return Broken({f"/v2/app/manifests/{name}": document for name in ("1", image.target().digest)})


def test_a_layer_that_breaks_off_is_never_fetched_more_than_twice_over(tmp_path: Path) -> None:
    image = Image([bytes(range(256)) * 600])  # 150 KiB: more than a connection gives
    size = len(image.layers[0])
    with breaking(image, ranges=True) as server, ContentStore(tmp_path / "1").span() as span:
        with remotes().open(reference.parse(f"{server.host}/app:1"), {}) as remote:
            pulled = pull(remote, AMD64, span=span, clock=SystemClock())
        assert pulled.bytes_fetched == sum(map(len, image.blobs().values()))
    with breaking(image, ranges=False) as server, ContentStore(tmp_path / "2").span() as span:
        with (
            remotes().open(reference.parse(f"{server.host}/app:1"), {}) as remote,
            pytest.raises(AgentError),
        ):
            pull(remote, AMD64, span=span, clock=SystemClock())
        layer = [request for request in server.asked if str(Digest.of(image.layers[0])) in request.path]
        whole = sum(request.range is None for request in layer)
        assert whole * (100 << 10) <= 2 * size
        assert len(layer) <= 6
