"""What is kept for a revision that one may go back to."""

from reconciler.decide.marking import keep_of, keepers, needed
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object

RECORD = {
    "wish": {"ref": "web:1", "platform": "linux/amd64", "driver": "overlayfs"},
    "target": {"mediaType": "x", "digest": "sha256:aa", "size": 1},
    "blobs": ["sha256:aa"],
    "driver": "overlayfs",
    "chain": "sha256:cc",
    "config": {"user": "not kept"},
}


def revision(*images: str, **record: object) -> Object:
    return Object(Key(Kind.REVISION, "edge-1"), spec={"source": "edge", "images": images}, record=record)


def test_a_revision_keeps_an_image_by_any_spelling_of_its_name_and_once() -> None:
    named = revision("docker.io/library/web:1", "other:2")
    assert keepers([named, revision("web:2"), Object(Key(Kind.IMAGE, "web"))], RECORD) == [named]
    assert keepers([revision("web:1", keeps=[keep_of(RECORD)])], RECORD) == []


def test_what_a_revision_keeps_is_needed_until_it_goes() -> None:
    keeping = revision("web:1", keeps=[keep_of(RECORD)])
    assert needed([keeping]).blobs == {"sha256:aa"}
    assert needed([keeping]).chains("overlayfs", {"sha256:cc": "sha256:bb", "sha256:bb": None}) == {
        "sha256:cc",
        "sha256:bb",
    }
    assert needed([keeping], going=keeping.key).blobs == set()
    assert "config" not in keep_of(RECORD)
