"""Archives made of bytes: which image is meant, and what hostile ones get."""

import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard

from core.clock import VirtualClock
from core.content.store import ContentStore
from core.digest import Digest
from core.errors import AgentError, Corrupt, Invalid, NotFound, OverLimit, Unsupported
from core.transfer import members, platform, reference
from core.transfer.archive import FULL_NAME, REF_NAME, Archive, entries
from core.transfer.members import open_members
from core.transfer.ports import Descriptor, PulledImage
from core.transfer.pull import pull
from tests.fakes.images import Image, described, index_of

AMD64 = platform.parse("linux/amd64")
ONE = Image([b"one" * 9])
TWO = Image([b"two" * 9, b"three" * 9])
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
Files = dict[str, bytes]


def blobs(*images: Image) -> Files:
    """The blobs of images as an OCI layout has them."""
    return {f"blobs/sha256/{digest.hex}": data for image in images for digest, data in image.blobs().items()}


def oci(*entry: tuple[Image, Mapping[str, str]]) -> Files:
    """An OCI layout of images with their annotations."""
    found = [described(image.manifest, image.target().media_type, annotations=dict(notes)) for image, notes in entry]
    return {"oci-layout": LAYOUT, "index.json": index_of(*found), **blobs(*(image for image, _ in entry))}


def packed(layer: bytes) -> bytes:
    """A layer packed by gzip, always alike."""
    return gzip.compress(layer, mtime=0)


def docker(*entry: tuple[Image, list[str]]) -> Files:
    """What `docker save` makes; the layers are packed, so that their digests are not their diff ids."""
    items, files = [], Files()
    for image, tags in entry:
        names = [f"{Digest.of(layer).hex}/layer.tar" for layer in image.layers]
        config = f"{Digest.of(image.config).hex}.json"
        files |= {config: image.config, **dict(zip(names, map(packed, image.layers), strict=True))}
        items.append({"Config": config, "RepoTags": tags, "Layers": names})
    return {**files, "manifest.json": json.dumps(items).encode(), "repositories": b"{}"}


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """A tar's member."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(data), link
    return info, data


def tar(path: Path, files: Files, *more: tuple[tarfile.TarInfo, bytes]) -> Path:
    """A tar of files, and of `more` after them."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as out:
        for info, data in [*(member(name, data) for name, data in files.items()), *more]:
            out.addfile(info, io.BytesIO(data))
    return path


def folder(path: Path, files: Files) -> Path:
    """A folder of files."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def chosen(path: Path, ref: str, node: str = "linux/amd64") -> Descriptor:
    """What `ref` means in the archive."""
    with Archive(path, reference.parse(ref), platform.parse(node), path.parent) as archive:
        return archive.resolve()


def imported(path: Path, ref: str, store: Path) -> PulledImage:
    """The image `ref`, brought into a content store without being unpacked."""
    with (
        Archive(path, reference.parse(ref), AMD64, path.parent) as archive,
        ContentStore(store).span() as span,
    ):
        return pull(archive, AMD64, span=span, clock=VirtualClock())


BOTH = oci((ONE, {REF_NAME: "1"}), (TWO, {FULL_NAME: "example.org/two:2", REF_NAME: "2"}))


@pytest.mark.parametrize("ref", ["example.org/two:2", "other.org/some:2", f"x@{TWO.target().digest}"])
def test_an_image_is_found_by_its_full_name_its_tag_and_its_digest(ref: str, tmp_path: Path) -> None:
    assert chosen(tar(tmp_path / "a.tar", BOTH), ref) == TWO.target()
    assert chosen(folder(tmp_path / "layout", BOTH), ref) == TWO.target()


def test_the_full_name_goes_before_the_tag(tmp_path: Path) -> None:
    files = oci((ONE, {FULL_NAME: "docker.io/library/web:1"}), (TWO, {FULL_NAME: "example.org/web:1"}))
    assert chosen(tar(tmp_path / "a.tar", files), "web:1") == ONE.target()
    assert chosen(tar(tmp_path / "a.tar", files), "example.org/web:1") == TWO.target()
    with pytest.raises(NotFound, match=r"docker\.io/library/web:1; example\.org/web:1"):
        chosen(tar(tmp_path / "a.tar", files), "other.org/web:1")


def test_the_only_image_is_meant_whatever_it_is_called(tmp_path: Path) -> None:
    for notes in ({}, {REF_NAME: "some words: not a name"}):
        assert chosen(tar(tmp_path / "a.tar", oci((ONE, notes))), "web:9") == ONE.target()


def test_what_is_not_there_is_told_with_what_is(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", BOTH)
    with pytest.raises(NotFound, match=r"there is: 1; example\.org/two:2, 2") as told:
        chosen(path, "example.org/two:3")
    assert "spec.ref" in told.value.hint()
    with pytest.raises(NotFound):
        chosen(path, f"x@{Digest.of(b'another')}")


def test_of_one_name_for_several_platforms_the_nodes_is_taken(tmp_path: Path) -> None:
    arm = Image([b"arm"], "arm64")
    found = [
        described(image.manifest, image.target().media_type, platform={"os": "linux", "architecture": name})
        for image, name in ((ONE, "amd64"), (arm, "arm64"))
    ]
    files = {"oci-layout": LAYOUT, "index.json": index_of(*found), **blobs(ONE, arm)}
    path = tar(tmp_path / "a.tar", files)
    assert chosen(path, "web:1", "linux/arm64") == arm.target()
    assert chosen(path, "web:1") == ONE.target()
    with pytest.raises(NotFound):
        chosen(path, "web:1", "linux/s390x")


def test_an_index_inside_the_index_is_followed_to_the_platform(tmp_path: Path) -> None:
    arm = Image([b"arm"], "arm64")
    inner = index_of(
        described(arm.manifest, arm.target().media_type, platform={"os": "linux", "architecture": "arm64"}),
        described(ONE.manifest, ONE.target().media_type, platform={"os": "linux", "architecture": "amd64"}),
    )
    outer = index_of(described(inner, "application/vnd.oci.image.index.v1+json"))
    files = {"oci-layout": LAYOUT, "index.json": outer, f"blobs/sha256/{Digest.of(inner).hex}": inner}
    pulled = imported(tar(tmp_path / "a.tar", files | blobs(ONE, arm)), "web:1", tmp_path / "store")
    assert (pulled.target.digest, pulled.manifest) == (Digest.of(inner), ONE.target())
    assert set(pulled.blobs) == {Digest.of(inner), *ONE.blobs()}


def test_a_docker_archives_image_has_a_manifest_that_is_always_the_same(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", docker((ONE, ["one:1"]), (TWO, ["example.org/two:2", "two:latest"])))
    pulled = imported(path, "two", tmp_path / "store")
    assert pulled.config_digest == Digest.of(TWO.config)
    assert [layer.size for layer in pulled.layers] == [len(packed(layer)) for layer in TWO.layers]
    other = tar(tmp_path / "b.tar", docker((TWO, ["else:1"])))
    assert chosen(other, "two").digest == pulled.target.digest
    assert pulled.pulled_from == str(path)


def test_a_tar_that_is_both_is_read_as_the_oci_layout(tmp_path: Path) -> None:
    files = {**docker((TWO, ["two:2"])), **oci((ONE, {REF_NAME: "1"}))}
    assert chosen(tar(tmp_path / "a.tar", files), "web:1") == ONE.target()


def test_packed_archives_are_read_and_leave_nothing(tmp_path: Path) -> None:
    plain = tar(tmp_path / "plain", oci((TWO, {}))).read_bytes()
    (tmp_path / "plain").unlink()
    for data in (gzip.compress(plain), zstandard.compress(plain)):
        (tmp_path / "a.tar").write_bytes(data)
        assert chosen(tmp_path / "a.tar", "two") == TWO.target()
        assert os.listdir(tmp_path) == ["a.tar"]


def test_a_blob_can_be_read_from_the_middle(tmp_path: Path) -> None:
    layer = Digest.of(TWO.layers[0])
    for path in (tar(tmp_path / "a.tar", oci((TWO, {}))), folder(tmp_path / "layout", oci((TWO, {})))):
        with Archive(path, reference.parse("two"), AMD64, tmp_path) as archive:
            wanted = Descriptor("", layer, len(TWO.layers[0]))
            assert b"".join(archive.blob(wanted, 5)) == TWO.layers[0][5:]


def first(files: Files) -> str:
    """The name of the first layer's blob of TWO."""
    name = f"blobs/sha256/{Digest.of(TWO.layers[0]).hex}"
    assert name in files
    return name


def test_wrong_bytes_and_sizes_that_lie_never_come_in(tmp_path: Path) -> None:
    good = oci((TWO, {}))
    manifest = f"blobs/sha256/{TWO.target().digest.hex}"
    lies = [
        good | {first(good): b"X" * len(TWO.layers[0])},
        good | {first(good): TWO.layers[0] + b"more"},
        good | {first(good): TWO.layers[0][:-1]},
        good | {manifest: TWO.manifest + b" "},
        good | {"index.json": good["index.json"].replace(str(len(TWO.manifest)).encode(), b"7")},
        good | {"index.json": good["index.json"].replace(str(len(TWO.manifest)).encode(), b"9" * 18)},
    ]
    for number, files in enumerate(lies):
        for path in (tar(tmp_path / f"{number}.tar", files), folder(tmp_path / f"{number}", files)):
            with pytest.raises((Corrupt, OverLimit)):
                imported(path, "two", tmp_path / f"store{number}")
            assert all(digest in TWO.blobs() for digest in ContentStore(tmp_path / f"store{number}").walk())


HOSTILE: list[tuple[str, tuple[tarfile.TarInfo, bytes], type[AgentError]]] = [
    ("leads out", member("../../etc/passwd", b"x"), Invalid),
    ("leads out in the middle", member("blobs/../../x", b"x"), Invalid),
    ("absolute", member("/etc/passwd", b"x"), Invalid),
    ("twice", member("index.json", b"{}"), Invalid),
    ("twice under another spelling", member("./blobs/../index.json", b"{}"), Invalid),
    ("a device", member("blobs/null", kind=tarfile.CHRTYPE), Invalid),
    ("a FIFO", member("blobs/pipe", kind=tarfile.FIFOTYPE), Invalid),
    ("a hard link", member("blobs/link", kind=tarfile.LNKTYPE, link="index.json"), Invalid),
    ("a name that is no text", member("blobs/\udcff", b"x"), Invalid),
    ("a long name", member("a/" * 600 + "x", b"x"), Invalid),
]


@pytest.mark.parametrize(("extra", "error"), [one[1:] for one in HOSTILE], ids=[one[0] for one in HOSTILE])
def test_a_member_that_no_image_has_is_refused(
    extra: tuple[tarfile.TarInfo, bytes], error: type[AgentError], tmp_path: Path
) -> None:
    with pytest.raises(error):
        chosen(tar(tmp_path / "a.tar", oci((ONE, {})), extra), "one")


def test_a_link_is_followed_once_to_a_file_of_the_archive_and_no_further(tmp_path: Path) -> None:
    files = docker((ONE, ["one:1"]))
    (layer,) = (name for name in files if name.endswith("/layer.tar"))
    kept = {name: data for name, data in files.items() if name != layer}
    real = {"real.tar": files[layer]}
    good = tar(tmp_path / "good.tar", kept | real, member(layer, kind=tarfile.SYMTYPE, link="../real.tar"))
    assert imported(good, "one:1", tmp_path / "store").layers[0].digest == Digest.of(packed(ONE.layers[0]))
    links = [
        [member(layer, kind=tarfile.SYMTYPE, link="/etc/passwd")],
        [member(layer, kind=tarfile.SYMTYPE, link="../../../../etc/passwd")],
        [member(layer, kind=tarfile.SYMTYPE, link="../b"), member("b", kind=tarfile.SYMTYPE, link="real.tar")],
        [member(layer, kind=tarfile.SYMTYPE, link="layer.tar")],
    ]
    for number, extra in enumerate(links):
        with pytest.raises(Invalid, match="link"):
            imported(tar(tmp_path / f"{number}.tar", kept | real, *extra), "one:1", tmp_path / "store")


def test_no_link_of_a_layout_folder_is_followed(tmp_path: Path) -> None:
    files = oci((TWO, {}))
    made = folder(tmp_path / "layout", files)
    (tmp_path / "outside").write_bytes(TWO.layers[0])
    (made / first(files)).unlink()
    (made / first(files)).symlink_to(tmp_path / "outside")
    with pytest.raises(Invalid, match="link"):
        imported(made, "two", tmp_path / "store")
    (made / first(files)).unlink()
    os.mkfifo(made / first(files))
    with pytest.raises(Invalid, match="regular"):
        imported(made, "two", tmp_path / "store")


def claiming(size: int) -> bytes:
    """A header that claims `size` bytes, and nothing after it."""
    info = tarfile.TarInfo("index.json")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("size", [1, 1 << 20, 1 << 40, 1 << 62])
def test_a_member_that_claims_more_than_there_is_is_refused_at_once(size: int, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(claiming(size))
    with pytest.raises(Invalid, match="cut short"):
        chosen(tmp_path / "a.tar", "one")


def test_an_archive_that_is_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    data = tar(tmp_path / "whole", oci((ONE, {}))).read_bytes()
    end = len(data.rstrip(b"\0"))
    for length in range(0, end, 512):
        (tmp_path / "a.tar").write_bytes(data[:length])
        with pytest.raises((Invalid, NotFound)):
            imported(tmp_path / "a.tar", "one", tmp_path / "store")


def test_too_many_members_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "_MOST_MEMBERS", 3)
    with pytest.raises(OverLimit, match="members"):
        chosen(tar(tmp_path / "a.tar", oci((ONE, {}))), "one")


def test_documents_have_a_limit(tmp_path: Path) -> None:
    for files in ({"oci-layout": LAYOUT, "index.json": b" " * (5 << 20)}, {"manifest.json": b" " * (5 << 20)}):
        with pytest.raises(OverLimit):
            chosen(tar(tmp_path / "a.tar", files), "one")


NOT_ARCHIVES: list[Files] = [
    {},
    {"hello": b"world"},
    {"index.json": b"{}"},
    {"oci-layout": LAYOUT, "index.json": b"[]"},
    {"oci-layout": LAYOUT, "index.json": ONE.manifest},
    {"oci-layout": LAYOUT, "index.json": b'{"schemaVersion":2,"manifests":[],"Manifests":[]}'},
    {"oci-layout": LAYOUT, "index.json": b'{"schemaVersion":2,"manifests":[{"digest":"sha256:../../x"}]}'},
    {"manifest.json": b"{}"},
    {"manifest.json": b"[1]"},
    {"manifest.json": b'[{"Config":1}]'},
    {"manifest.json": b'[{"Config":"x","Layers":"y"}]'},
    {"manifest.json": b'[{"Config":"x","Config":"y"}]'},
]


@pytest.mark.parametrize("files", NOT_ARCHIVES, ids=range(len(NOT_ARCHIVES)))
def test_what_is_no_archive_of_images_is_refused(files: Files, tmp_path: Path) -> None:
    with pytest.raises((Invalid, Unsupported)):
        chosen(tar(tmp_path / "a.tar", files), "one")


def documents() -> Iterator[Any]:
    """Entries of manifest.json that name what is not there, or not a file of the archive."""
    config = f"{Digest.of(ONE.config).hex}.json"
    (layer,) = (name for name in docker((ONE, [])) if name.endswith("/layer.tar"))
    yield {"Config": "../../etc/passwd", "Layers": [layer]}
    yield {"Config": config, "Layers": ["/etc/passwd"]}
    yield {"Config": config, "Layers": []}
    yield {"Config": config, "Layers": [layer, layer]}


@pytest.mark.parametrize("entry", [*documents()])
def test_a_docker_archive_names_only_its_own_files(entry: Any, tmp_path: Path) -> None:
    files = docker((ONE, ["one:1"])) | {"manifest.json": json.dumps([entry]).encode()}
    with pytest.raises((Invalid, NotFound)):
        imported(tar(tmp_path / "a.tar", files), "one:1", tmp_path / "store")


def test_other_packings_are_named(tmp_path: Path) -> None:
    for start, name in ((b"BZh91AY", "bzip2"), (b"\xfd7zXZ\0\0", "xz")):
        (tmp_path / "a.tar").write_bytes(start + b"x" * 600)
        with pytest.raises(Unsupported, match=name):
            chosen(tmp_path / "a.tar", "one")
    (tmp_path / "a.tar").write_bytes(gzip.compress(b"x" * 600)[:-9])
    with pytest.raises((Corrupt, Invalid)):
        chosen(tmp_path / "a.tar", "one")


def test_what_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no archive"):
        chosen(tmp_path / "none.tar", "one")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Invalid, match="neither"):
        chosen(tmp_path / "pipe", "one")


def test_names_are_listed_for_who_imports(tmp_path: Path) -> None:
    opened = open_members(tar(tmp_path / "a.tar", BOTH), tmp_path)
    assert [entry.names for entry in entries(opened)] == [("1",), ("example.org/two:2", "2")]
    opened.close()
