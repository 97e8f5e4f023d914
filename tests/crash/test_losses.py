"""Each kind of file of root lost or damaged: the agent is ready within 10 s, says so, and brings all of it back.

A sample of the files, each in the ways that hurt most; `make soak` does every file in every way.
"""

import pytest

from tests.conftest import Node
from tests.crash.ground import ground
from tests.crash.losses import READY_SECONDS, Losses
from tests.e2e.workloads import eventually
from tests.figures import Figure
from tests.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.slow]

SAMPLE = (
    ("store", 0, "deleted"),
    ("store", 0, "halved"),
    ("store", 0, "scrambled"),
    ("store-log", 0, "deleted"),
    ("store-log", 0, "scrambled"),
    ("store-index", 0, "scrambled"),
    ("applied", 0, "deleted"),
    ("applied", 4, "scrambled"),
    ("ledger", 0, "deleted"),
    ("ledger", 0, "scrambled"),
    ("note", 1, "emptied"),
    ("blob", 0, "deleted"),
    ("blob", 2, "halved"),
    ("log", 1, "deleted"),
    ("lock", 0, "deleted"),
)


def test_any_single_file_of_root_may_be_lost_and_comes_back(node: Node, registry: Registry, figure: Figure) -> None:
    with ground(node, registry.host) as made:
        losses = Losses(made)
        losses.begin()
        for name, number, damage in SAMPLE:
            assert losses.lose(name, number, damage), f"there is no file {number} of {name}"
        losses.end()
    assert max(losses.ready) <= READY_SECONDS
    figure("files lost or damaged", losses.count)
    figure("slowest start of an agent", max(losses.ready), "s")


def test_a_blob_that_rots_is_found_and_fetched_again_while_the_agent_runs(
    node: Node, registry: Registry, figure: Figure
) -> None:
    with ground(node, registry.host) as made:
        losses = Losses(made)
        losses.begin()
        blob = max(losses.files("blob"), key=lambda path: path.stat().st_size)
        with open(blob, "r+b") as file:
            file.seek(1000)
            (letter,) = file.read(1)
            file.seek(1000)
            file.write(bytes([letter ^ 1]))
        took = made.converged(60)
        eventually(lambda: "ContentLost" in {event.reason for event in made.store.events()}, "what was lost is told")
        figure("until a rotten blob was right again", took, "s")
        losses.end()
