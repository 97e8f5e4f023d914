"""Hours of killing: 200 rounds, 200 rounds with a reboot each, and every single step of an apply."""

import subprocess
import sys
import time

import pytest

from tests.conftest import Node
from tests.crash.ground import ground
from tests.crash.rounds import Runner, run_rounds
from tests.crash.test_crash import TOP, rebooting
from tests.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.soak]

SHARDS = 2


def test_200_rounds_of_killing_each_converge(node: Node, registry: Registry) -> None:
    seed = int(time.time())
    with ground(node, registry.host) as made:
        run_rounds(Runner(made), seed, 200)


def test_200_rounds_of_killing_and_rebooting_each_converge(registry: Registry) -> None:
    rebooting(registry.host, int(time.time()), 200)


def test_killed_at_every_step_of_an_apply_the_next_one_converges(registry: Registry) -> None:
    command = [sys.executable, "-m", "tests.crash.steps", registry.host]
    shards = [
        subprocess.Popen([*command, str(first), str(SHARDS)], cwd=TOP, stdout=subprocess.PIPE, text=True)
        for first in range(1, SHARDS + 1)
    ]
    said = [shard.communicate()[0] for shard in shards]
    print("\n".join(said))
    assert [shard.returncode for shard in shards] == [0] * SHARDS, "\n".join(text[-2000:] for text in said)
