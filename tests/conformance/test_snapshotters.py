"""Both drivers under the contract of their port."""

from collections.abc import Iterator

import pytest

from core.snapshots.driver import FolderSnapshotter
from tests.conformance.snapshotter_contract import SnapshotterContract
from tests.conformance.snapshotter_ground import DRIVERS


class _FolderContract(SnapshotterContract):
    kind: str

    @pytest.fixture(autouse=True)
    def _closing(self, _place: None) -> Iterator[None]:
        self.made: list[FolderSnapshotter] = []
        yield
        for driver in self.made:
            driver.close()

    def driver(self) -> FolderSnapshotter:
        """The driver in this test's folder."""
        self.made.append(DRIVERS[self.kind](self.here / "snapshots"))
        return self.made[-1]


class TestOverlay(_FolderContract):
    kind = "overlayfs"


class TestNative(_FolderContract):
    kind = "native"
