"""Every file of root lost or damaged in every way."""

import pytest

from tests.conftest import Node
from tests.crash.ground import ground
from tests.crash.losses import CLASSES, DAMAGES, Losses, lose_each
from tests.figures import Figure
from tests.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.soak]


def test_every_file_of_root_may_be_lost_in_every_way(node: Node, registry: Registry, figure: Figure) -> None:
    with ground(node, registry.host) as made:
        losses = Losses(made)
        losses.begin()
        lose_each(losses, list(CLASSES), list(DAMAGES), 1000)
        losses.end()
    figure("files lost or damaged", losses.count)
