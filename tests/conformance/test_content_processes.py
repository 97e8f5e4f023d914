"""The content store between processes: one brings a blob, the other waits; a killed one leaves nothing in the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.content.store import ContentStore
from core.digest import Digest
from core.errors import Busy

DATA = b"x" * 100_000
DIGEST = Digest.of(DATA)
BRING = """
import sys, time
from pathlib import Path
from core.content.store import ContentStore
from core.digest import Digest
data = b"x" * 100_000
with ContentStore(Path(sys.argv[1])).span() as span:
    with span.ingest(Digest.of(data), len(data), lambda: time.sleep(0.01)) as writer:
        if writer is None:
            print("held", flush=True)
        else:
            print("writing", flush=True)
            writer.write(data[:50_000])
            sys.stdin.readline()
            writer.write(data[50_000:])
            writer.publish()
            print("brought", flush=True)
    span.sync()
"""


def bring(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BRING, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_two_processes_bring_one_blob_once(tmp_path: Path) -> None:
    with bring(tmp_path) as first:
        assert line(first) == "writing"
        with bring(tmp_path) as second:
            time.sleep(0.3)
            assert first.communicate("go\n")[0].split() == ["brought"]
            assert line(second) == "held"
    assert ContentStore(tmp_path).read(DIGEST, len(DATA)) == DATA
    assert os.listdir(tmp_path / "ingest") == []


def test_a_killed_process_is_taken_over_by_who_waits(tmp_path: Path) -> None:
    with bring(tmp_path) as first:
        assert line(first) == "writing"
        with bring(tmp_path) as second:
            first.send_signal(signal.SIGKILL)
            assert line(second) == "writing"
            assert second.communicate("go\n")[0].split() == ["brought"]
    assert ContentStore(tmp_path).read(DIGEST, len(DATA)) == DATA
    assert os.listdir(tmp_path / "ingest") == []


def test_collection_holds_off_while_another_process_pulls(tmp_path: Path) -> None:
    with bring(tmp_path) as first:
        assert line(first) == "writing"
        with pytest.raises(Busy):
            ContentStore(tmp_path).collect(frozenset)
        first.communicate("go\n")
    assert ContentStore(tmp_path).collect(frozenset) == [DIGEST]
