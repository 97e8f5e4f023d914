"""What the node says of itself."""

from dataclasses import replace

import pytest

from reconciler.decide.facts import Disk, NodeFacts
from reconciler.decide.node import node_detail
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object

ROOMY = Disk(50 << 30, 100 << 30, 500, 1000)
FACTS = NodeFacts(Object(Key(Kind.NODE, "n")), ROOMY)


def test_a_node_with_room_that_lost_nothing_has_no_condition_of_its_own() -> None:
    assert node_detail(FACTS).conditions == ()


@pytest.mark.parametrize(
    ("disk", "reason"),
    [
        (replace(ROOMY, free_bytes=4 << 30), "OutOfSpace"),
        (replace(ROOMY, free_inodes=49), "OutOfInodes"),
        (replace(ROOMY, read_only=True), "ReadOnly"),
        (replace(ROOMY, free_inodes=0, inodes=0), None),
        (replace(ROOMY, free_bytes=5 << 30, free_inodes=50), None),
    ],
)
def test_disk_pressure_is_told_with_its_reason(disk: Disk, reason: str | None) -> None:
    found = {type_: (truth, why) for type_, truth, why, _ in node_detail(replace(FACTS, disk=disk)).conditions}
    assert found == ({"DiskPressure": (True, reason)} if reason else {})


def test_a_refused_configuration_and_one_that_waits_are_told() -> None:
    found = node_detail(replace(FACTS, refused="config.yaml:3:1: no", waiting=("root", "state"))).conditions
    assert found == (
        ("ConfigInvalid", True, "Refused", "the last good one stays in force: config.yaml:3:1: no"),
        ("RestartNeeded", True, "ConfigChanged", "restart the agent to bring into force: root, state"),
    )


def test_a_loss_is_told_in_its_own_words() -> None:
    assert node_detail(replace(FACTS, notice="three were lost")).conditions == (
        ("StoreRebuilt", True, "Lost", "three were lost"),
    )
