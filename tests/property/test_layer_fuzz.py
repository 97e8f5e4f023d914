"""Random layers: nothing outside changes, nothing is left of a refused one, drivers agree, and so does umoci."""

import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import AgentError
from core.layers import Compression
from core.snapshots.job import Done, Fault, Job, Redo
from core.snapshots.rooted import Beneath
from core.snapshots.worker import answer
from tests.conformance.snapshotter_ground import (
    CHR,
    DIR,
    DRIVERS,
    FIFO,
    LNK,
    REG,
    SYM,
    Entry,
    layer,
    mounted,
    need_root,
    tree,
    unpack,
)

PARTS = ("a", "b", "c", ".", "..", "", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh..", "l")
paths = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map("/".join)
targets = st.one_of(paths, st.sampled_from(("/", "/proc/self/root", "../../../../outside", "/outside/secret", "/a")))
entries = st.builds(
    Entry,
    name=paths,
    type=st.sampled_from((REG, REG, DIR, DIR, SYM, SYM, LNK, CHR, FIFO)),
    data=st.binary(max_size=600),
    link=targets,
    mode=st.sampled_from((0o644, 0o755, 0o4777, 0o2775, 0)),
    owner=st.sampled_from(((0, 0), (1, 2))),
    device=st.sampled_from(((0, 0), (1, 3))),
)
layers = st.lists(entries, min_size=1, max_size=12).map(lambda made: layer(*made))
QUICK = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    need_root()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (outside / "secret").chmod(0o600)
    before = tree(outside)
    yield outside
    assert tree(outside) == before


def apply(place: Path, data: bytes, beneath: Beneath) -> Done | Redo | Fault:
    """One layer applied in this process to a new folder below `place`."""
    shutil.rmtree(place, ignore_errors=True)
    (place / "1/fs").mkdir(parents=True)
    (place / "blob").write_bytes(data)
    job = Job(str(place / "blob"), Compression.NONE, "sha256", beneath, "1/fs", 1 << 20, 1000, False, 60.0, str(place))
    return answer(job, os.getppid())


@QUICK
@given(data=layers, beneath=st.sampled_from(Beneath))
def test_no_layer_reaches_out(canary: Path, data: bytes, beneath: Beneath) -> None:
    before = tree(canary)
    apply(canary.parent / "job", data, beneath)
    assert tree(canary) == before


@QUICK
@given(data=layers, seed=st.integers(0, 2**32))
def test_no_broken_tar_does_more_than_be_refused(canary: Path, data: bytes, seed: int) -> None:
    chance = random.Random(seed)
    broken = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        broken[chance.randrange(len(broken))] = chance.randrange(256)
    seen = apply(canary.parent / "job", bytes(broken[: chance.randint(1, len(broken))]), Beneath.NOTHING)
    assert isinstance(seen, Done | Fault)
    if isinstance(seen, Fault):
        assert seen.kind in ("Invalid", "OverLimit"), seen


def listed(data: bytes, place: Path) -> set[str] | None:
    """The files that `umoci raw unpack` of an image of this layer makes; None where it refuses."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()

    def umoci(*words: str | Path) -> int:
        return subprocess.run(["umoci", *words], capture_output=True, check=False).returncode

    image = place / "layout"
    assert umoci("init", "--layout", image) == 0
    assert umoci("new", "--image", f"{image}:t") == 0
    (place / "layer.tar").write_bytes(data)
    if umoci("raw", "add-layer", "--image", f"{image}:t", place / "layer.tar"):
        return None
    if umoci("raw", "unpack", "--image", f"{image}:t", place / "root"):
        return None
    return set(tree(place / "root"))


def test_what_we_accept_umoci_lists_alike(canary: Path) -> None:
    if not shutil.which("umoci"):
        pytest.skip("umoci is not installed")
    place = canary.parent
    accepted = 0
    for name, data in differentials().items():
        seen = apply(place / "job", data, Beneath.NOTHING)
        theirs = listed(data, place / "umoci")
        if isinstance(seen, Done):
            assert theirs == set(tree(place / "job/1/fs")), name
            accepted += 1
    assert accepted >= 6


def differentials() -> dict[str, bytes]:
    """Tars that readers have been known to read differently."""
    plain = layer(Entry("a", data=b"1" * 600), Entry("b", data=b"2"))
    hidden = layer(Entry("hidden", data=b"3"))[:1024]
    longname = layer(Entry("n" * 150, data=b"x"), format=tarfile.GNU_FORMAT)
    override = {"path": "renamed"}
    return {
        "plain": plain,
        "ustar": layer(Entry("p" * 90 + "/" + "q" * 90, data=b"x"), format=tarfile.USTAR_FORMAT),
        "gnu long name": longname,
        "pax path": layer(Entry("a", data=b"x", pax=override), Entry("b")),
        "pax size 0 over a body": layer(Entry("a", data=hidden, pax={"size": "0"})),
        "pax size over a smaller header": layer(Entry("a", data=b"", pax={"size": "1024"})) + hidden,
        "gnu name between a pax header and its file": (
            layer(Entry("a", pax=override))[:1024] + longname[:1024] + layer(Entry("b"))[:512] + bytes(1024)
        ),
        "NUL in a name": layer(Entry("a\0b", data=b"x"), format=tarfile.USTAR_FORMAT),
        "a folder by its slash": layer(Entry("d/", tarfile.AREGTYPE), format=tarfile.USTAR_FORMAT),
        "a member after the end": plain + hidden,
        "one zero block": plain[:1536] + bytes(512) + hidden,
        "no end": plain[: len(plain.rstrip(b"\0")) // 512 * 512 + 512],
        "a global header": layer(Entry("a"), format=tarfile.PAX_FORMAT),
        "base-256 owner": layer(Entry("a", owner=(3_000_000, 3_000_000)), format=tarfile.GNU_FORMAT),
        "repeated names": layer(Entry("a", data=b"1"), Entry("./a", data=b"2"), Entry("/a", data=b"3")),
    }


@pytest.mark.slow
def test_both_drivers_make_the_same_of_random_images(canary: Path) -> None:
    place = canary.parent
    chance = random.Random(4)

    def random_entry() -> Entry:
        name = chance.choice(("", "a/", "a/", "b/", "c/")) + chance.choice("abcd")
        kind = chance.choice((REG, REG, REG, DIR, DIR, SYM))
        if "/" in name and chance.random() < 0.3:
            return Entry(f"{name[:2]}{chance.choice(('.wh.a', '.wh.b', '.wh.c', '.wh..wh..opq'))}")
        if "/" in name and chance.random() < 0.2:
            return Entry(name, LNK, link=f"{name[:2]}a")
        return Entry(name, kind, data=name.encode(), link=chance.choice("abcd"), mode=chance.choice((0o644, 0o755)))

    base = layer(*(Entry(f"{name}/{file}", data=b"base") for name in "abc" for file in "ab"))
    compared = 0
    for round_ in range(25):
        image = [base, *(layer(*(random_entry() for _ in range(chance.randint(2, 6)))) for _ in range(2))]
        outcomes = []
        for kind, make in sorted(DRIVERS.items()):
            driver = make(place / f"{kind}-{round_}")
            try:
                with mounted(driver, "look", unpack(driver, image)) as root:
                    outcomes.append(told(root))
            except AgentError as error:
                outcomes.append({"refused": type(error).__name__})
            driver.close()
        assert outcomes[0] == outcomes[1], image
        compared += "refused" not in outcomes[0]
    assert compared >= 3


def told(root: Path) -> dict[str, object]:
    """The tree without the times of folders that no layer names."""
    return {name: (*seen[:3], *seen[4:]) for name, seen in tree(root).items()}
