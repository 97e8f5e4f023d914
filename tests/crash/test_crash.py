"""Killed at random moments and at each step, the next run brings the node to what it should be, and nothing is left.

`make soak` does all of the points and ten times the rounds; here are the rounds of one seed and a sample of the points.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Node
from tests.crash import checker, tracer
from tests.crash.ground import NAMES, ground
from tests.crash.rounds import Runner, rounds, run_rounds
from tests.crash.steps import sweep
from tests.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.slow]

SEED = 2
TOP = Path(__file__).parents[2]


def test_the_checker_sees_what_is_missing_and_what_is_left_over(node: Node, registry: Registry) -> None:
    with ground(node, registry.host) as made:
        made.want({"c0": "1", "c4": "1"})
        made.apply()
        made.converged()
        (node.state / "bundles" / "c0-00000000-7").mkdir()
        (node.root / "volumes" / ".staging-data").mkdir()
        with made.ledger.joinpath("starts").open("a") as starts:
            starts.write("c0-00000000-7\n" * 2)
        found = "\n".join(checker.faults(made.wanted(), made.store))
        assert "bundle left over: c0-00000000-7" in found
        assert "volumes/.staging-data" in found
        assert "attempt c0-00000000-7 started 2 times" in found
        assert any("c4 does" in fault or "c4" in fault for fault in checker.faults(_without(made.wanted()), made.store))
        (node.state / "bundles" / "c0-00000000-7").rmdir()
        made.delete_all()


def _without(wanted: checker.Wanted) -> checker.Wanted:
    return checker.Wanted(wanted.place, {"c0": "1"}, wanted.sandboxes, wanted.starts, wanted.in_shared)


def test_the_rounds_of_a_seed_are_always_the_same() -> None:
    first, second = list(rounds(SEED, 20)), list(rounds(SEED, 20))
    assert first == second
    assert set(first[0].containers) == set(NAMES)


def test_after_each_of_20_rounds_of_killing_the_node_is_what_it_should_be(node: Node, registry: Registry) -> None:
    with ground(node, registry.host) as made:
        run_rounds(Runner(made), SEED, 20)


def test_after_a_kill_and_a_reboot_the_node_is_what_it_should_be(registry: Registry) -> None:
    rebooting(registry.host, SEED, 6)


def rebooting(host: str, seed: int, count: int) -> None:
    """Rounds that end in a reboot, in a mount namespace of their own, where the kernel's boot id can be covered."""
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.crash.rounds"]
    done = subprocess.run([*command, host, str(seed), str(count), "reboot"], cwd=TOP, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:]


def test_killed_at_a_step_of_an_apply_the_next_apply_converges(node: Node, registry: Registry) -> None:
    if not tracer.supported():
        pytest.skip("the numbers of this machine's calls are not known")
    with ground(node, registry.host) as made:
        done = sweep(made, sample=9, seconds=45)
        assert done.where.total() >= 3
