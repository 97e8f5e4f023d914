"""A thousand containers made and deleted under one agent; every single write and sync of an apply refused."""

from collections.abc import Iterator

import pytest

from tests.conftest import Node
from tests.crash.ground import Ground, ground
from tests.crash.refusals import refuse_all
from tests.crash.test_faults_node import RUNNING, cycles
from tests.figures import Figure
from tests.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.soak]


@pytest.fixture
def made(node: Node, registry: Registry) -> Iterator[Ground]:
    with ground(node, registry.host) as fresh:
        fresh.want(RUNNING)
        fresh.start_agent()
        fresh.apply()
        yield fresh
        fresh.delete_all()


def test_fault_08_every_write_and_sync_of_an_apply_refused_the_next_one_converges(
    node: Node, registry: Registry, figure: Figure
) -> None:
    with ground(node, registry.host) as made:
        figure("writes and syncs refused, one an apply", refuse_all(made).where.total())


def test_fault_25_a_thousand_containers_made_and_deleted_leak_nothing(made: Ground, figure: Figure) -> None:
    cycles(made, 1000, figure)
