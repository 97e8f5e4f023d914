"""Several places for one image."""

from pathlib import Path

import pytest

from core.clock import VirtualClock
from core.content.ingest import WrongBytes
from core.content.store import ContentStore
from core.digest import Digest
from core.errors import Denied, NotFound, Unavailable
from core.transfer import manifests, platform, reference
from core.transfer.auth import Credentials
from core.transfer.endpoints import Can, Endpoint, Ways
from core.transfer.mirrors import Mirrors, open_image
from core.transfer.ports import PulledImage
from core.transfer.pull import pull
from core.transfer.registry import Registry
from tests.fakes.hostile_http import HostileServer, Reply
from tests.fakes.images import Image

IMAGE = Image([b"a layer of some bytes" * 1000, b"and another"])
AMD64 = platform.parse("linux/amd64")
BOTH = {Can.PULL, Can.RESOLVE}


def serving(image: Image = IMAGE) -> dict[str, Reply | list[Reply]]:
    """What a registry answers that holds `image` as app:1."""
    manifest = {"Content-Type": manifests.OCI_MANIFEST, "Docker-Content-Digest": str(image.target().digest)}
    replies: dict[str, Reply | list[Reply]] = {
        f"/v2/app/blobs/{digest}": Reply(200, {}, data) for digest, data in image.blobs().items()
    }
    document = Reply(200, manifest, image.manifest)
    return replies | {f"/v2/app/manifests/{name}": document for name in ("1", image.target().digest)}


def remote(
    own: HostileServer, *mirrors: HostileServer, can: set[Can] = BOTH, logins: dict[str, Credentials] | None = None
) -> Registry | Mirrors:
    """`own` holds the image; the mirrors are asked first."""
    places = [
        *(Endpoint(f"{mirror.url}/v2", frozenset(can), namespace=own.host) for mirror in mirrors),
        Endpoint(f"{own.url}/v2"),
    ]
    known = logins or {}
    named = reference.parse(f"{own.host}/app:1")
    return open_image(named, places, Ways(), lambda place: lambda: known.get(place.host), VirtualClock())


def run(folder: Path, source: Registry | Mirrors) -> PulledImage:
    with ContentStore(folder).span() as span, source:
        return pull(source, AMD64, span=span, clock=VirtualClock())


def test_a_mirror_is_asked_first_and_told_for_whom_it_stands(tmp_path: Path) -> None:
    with HostileServer(serving()) as mirror, HostileServer() as own:
        pulled = run(tmp_path, remote(own, mirror))
        assert pulled.pulled_from == mirror.host
        assert own.asked == []
        assert all(request.path.endswith(f"?ns={own.host}") for request in mirror.asked)


def test_a_mirror_that_may_only_pull_is_not_asked_what_a_tag_means(tmp_path: Path) -> None:
    with HostileServer(serving()) as mirror, HostileServer(serving()) as own:
        run(tmp_path, remote(own, mirror, can={Can.PULL}))
        assert [request.path for request in own.asked] == ["/v2/app/manifests/1"]
        assert all("sha256:" in request.path for request in mirror.asked)


@pytest.mark.parametrize("reply", [Reply(404), Reply(500), Reply(429), Reply(403), Reply(200, {}, b"<html>")])
def test_a_mirror_that_fails_is_passed_over(tmp_path: Path, reply: Reply) -> None:
    with HostileServer(dict.fromkeys(serving(), reply)) as mirror, HostileServer(serving()) as own:
        pulled = run(tmp_path, remote(own, mirror))
        assert pulled.pulled_from == own.host
        assert all(ContentStore(tmp_path).intact(digest) for digest in pulled.blobs)


def test_a_mirror_that_is_down_is_passed_over(tmp_path: Path) -> None:
    with HostileServer() as gone:
        pass
    with HostileServer(serving()) as own:
        assert run(tmp_path, remote(own, gone)).pulled_from == own.host


def test_a_mirror_that_lies_is_passed_over_and_not_asked_for_that_blob_again(tmp_path: Path) -> None:
    victim = Digest.of(IMAGE.layers[0])
    lie = b"A" + IMAGE.layers[0][1:]
    with HostileServer(serving()) as mirror, HostileServer(serving()) as own:
        mirror.replies[f"/v2/app/blobs/{victim}"] = [Reply(200, {}, lie)]
        pulled = run(tmp_path, remote(own, mirror))
        assert sum(str(victim) in request.path for request in mirror.asked) == 1
        assert [request.path for request in own.asked] == [f"/v2/app/blobs/{victim}"]
    assert ContentStore(tmp_path).intact(victim)
    assert pulled.bytes_fetched <= 2 * sum(map(len, IMAGE.blobs().values()))


def test_a_mirror_that_lies_about_a_manifest_is_passed_over(tmp_path: Path) -> None:
    path = f"/v2/app/manifests/{IMAGE.target().digest}"
    other = Image([b"something else"])
    with HostileServer(serving()) as mirror, HostileServer(serving()) as own:
        mirror.replies[path] = [Reply(200, {"Content-Type": manifests.OCI_MANIFEST}, other.manifest)]
        assert run(tmp_path, remote(own, mirror)).pulled_from == own.host


def test_when_all_places_lie_nothing_is_published(tmp_path: Path) -> None:
    victim = Digest.of(IMAGE.layers[0])
    with HostileServer(serving()) as mirror, HostileServer(serving()) as own:
        for server in (mirror, own):
            server.replies[f"/v2/app/blobs/{victim}"] = [Reply(200, {}, b"A" + IMAGE.layers[0][1:])]
        with pytest.raises(WrongBytes):
            run(tmp_path, remote(own, mirror))
        assert sum(str(victim) in request.path for request in (*mirror.asked, *own.asked)) == 2
    assert not ContentStore(tmp_path).has(victim, len(IMAGE.layers[0]))


def test_the_error_says_what_each_place_said(tmp_path: Path) -> None:
    with HostileServer({path: Reply(503, {}, b"on fire") for path in serving()}) as mirror, HostileServer() as own:
        with pytest.raises(NotFound) as caught:
            run(tmp_path, remote(own, mirror))
        assert f"{mirror.host}: " in caught.value.message
        assert "503: on fire" in caught.value.message
        assert f"{own.host}: " in caught.value.message


def test_a_blob_that_a_mirror_began_is_gone_on_with_elsewhere(tmp_path: Path) -> None:
    layer = Image([bytes(range(256)) * 4096])
    data, digest = layer.layers[0], Digest.of(layer.layers[0])
    half = Reply(200, {"Content-Length": str(len(data)), "Connection": "close"}, lambda: [data[: 512 << 10]])
    rest = Reply(206, {"Content-Range": f"bytes {512 << 10}-{len(data) - 1}/{len(data)}"}, data[512 << 10 :])
    with HostileServer(serving(layer)) as mirror, HostileServer(serving(layer)) as own:
        mirror.replies[f"/v2/app/blobs/{digest}"] = [half]
        own.replies[f"/v2/app/blobs/{digest}"] = [rest]
        pulled = run(tmp_path, remote(own, mirror))
        assert [request.range for request in own.asked] == [f"bytes={512 << 10}-"]
    assert pulled.bytes_fetched == sum(map(len, layer.blobs().values()))


def test_a_login_goes_to_the_host_it_is_for_and_to_no_other(tmp_path: Path) -> None:
    mine, its = Credentials("me", "mine"), Credentials("me", "its")
    locked = Reply(401, {"WWW-Authenticate": 'Basic realm="x"'})
    with HostileServer(dict.fromkeys(serving(), locked)) as mirror, HostileServer() as own:
        for path, reply in serving().items():
            assert isinstance(reply, Reply)
            own.replies[path] = [locked, reply]
        run(tmp_path, remote(own, mirror, logins={own.host: mine}))
        assert set(own.logins()) == {mine.basic()}
        assert mirror.logins() == []
    with HostileServer(dict.fromkeys(serving(), locked)) as mirror, HostileServer() as own, pytest.raises(NotFound):
        run(tmp_path, remote(own, mirror, logins={mirror.host: its}))
    assert set(mirror.logins()) == {its.basic()}
    assert own.logins() == []


def test_where_no_host_may_be_asked_it_is_denied(tmp_path: Path) -> None:
    with HostileServer(serving()) as mirror:
        place = Endpoint(f"{mirror.url}/v2", frozenset({Can.PUSH}))
        named = reference.parse(f"{mirror.host}/app:1")
        source = open_image(named, [place, place], Ways(), lambda _: lambda: None, VirtualClock())
        with pytest.raises(Denied, match="no host may be asked") as caught:
            run(tmp_path, source)
        assert "capabilities" in caught.value.hint()
        assert mirror.asked == []


def test_headers_of_a_host_are_sent_to_it_alone(tmp_path: Path) -> None:
    with HostileServer(serving()) as own:
        place = Endpoint(f"{own.url}/v2", headers={"Authorization": "Bearer of the file"})
        named = reference.parse(f"{own.host}/app:1")
        run(tmp_path, open_image(named, [place], Ways(), lambda _: lambda: None, VirtualClock()))
        assert set(own.logins()) == {"Bearer of the file"}
    with HostileServer({"/x": Reply(200, {}, IMAGE.layers[0])}) as storage, HostileServer(serving()) as own:
        own.replies[f"/v2/app/blobs/{Digest.of(IMAGE.layers[0])}"] = [Reply(307, {"Location": f"{storage.url}/x"})]
        place = Endpoint(f"{own.url}/v2", headers={"Authorization": "Bearer of the file"})
        named = reference.parse(f"{own.host}/app:1")
        run(tmp_path / "2", open_image(named, [place], Ways(), lambda _: lambda: None, VirtualClock()))
        assert len(storage.asked) == 1
        assert storage.logins() == []


def test_a_registry_that_is_down_is_unavailable_with_both_named(tmp_path: Path) -> None:
    with HostileServer() as mirror, HostileServer() as own:
        pass
    with pytest.raises(Unavailable) as caught:
        run(tmp_path, remote(own, mirror))
    assert mirror.host in caught.value.message
    assert own.host in caught.value.message
