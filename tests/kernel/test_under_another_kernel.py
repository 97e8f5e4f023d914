"""Tests of ours on a node of another kind: Debian's kernel, control groups of version 2 alone, AppArmor.

One machine is booted for all of them; each test here is one that was run there, and says what came of it.
"""

from __future__ import annotations

import os
import platform
import shutil
from itertools import product
from pathlib import Path
from typing import Final

import pytest

from core.errors import AgentError
from core.runtime.vm.installed import GUEST, Installed, installed
from tests.kernel.machine import Run, run
from tests.runtimes import RUNTIMES

pytestmark = [pytest.mark.root, pytest.mark.slow]

SECONDS: Final = 900.0
"""For a machine that shares its processors with everything; alone it takes a tenth of it."""
SHIM: Final = "tests/conformance/shim_oci_test.py::TestOciRuntimesUnderConmon"
APPARMOR: Final = "tests/conformance/shim_oci_apparmor_test.py"
CHECKPOINTS: Final = "tests/conformance/shim_oci_checkpoint_test.py"
SHIM_CHECKPOINTS: Final = "tests/conformance/shim_v2_checkpoint_test.py"
"""With CRIU, which does not work on every kernel."""
TESTS: Final = (
    "tests/kernel/inside.py::test_control_groups_are_of_version_2_alone",
    "tests/kernel/inside.py::test_apparmor_is_on",
    "tests/kernel/inside.py::test_the_kernel_is_debians",
    "tests/kernel/inside.py::test_what_is_written_here_does_not_reach_the_host",
    *(
        f"{SHIM}::{test}[{runtime}]"
        for runtime, test in product(
            RUNTIMES,
            (
                "test_a_task_goes_from_absent_to_absent_by_the_table",
                "test_a_paused_task_stands_still_until_it_is_resumed",
                "test_everyone_is_signalled_when_everyone_is_meant",
                "test_limits_change_in_place",
                "test_counters_count",
                "test_a_task_over_its_memory_is_killed_and_says_so",
                "test_many_tasks_do_not_get_in_each_others_way",
            ),
        )
    ),
    *(
        f"{APPARMOR}::{test}[{runtime}]"
        for runtime, test in product(
            RUNTIMES,
            (
                "test_a_profile_denies_what_it_says_and_nothing_else",
                "test_a_further_process_is_confined_as_the_first_one_is",
                "test_unconfined_and_privileged_are_confined_by_none",
                "test_a_profile_that_is_not_loaded_starts_nothing",
                "test_a_profile_that_comes_as_a_text_has_a_name_of_ours_confines_and_goes_with_its_task",
                "test_a_text_that_the_parser_refuses_is_told_with_its_words",
            ),
        )
    ),
    f"{CHECKPOINTS}::TestRuncsCheckpoints::test_a_counter_in_memory_goes_on_counting_where_it_was",
    f"{CHECKPOINTS}::TestRuncsCheckpoints::test_a_restored_task_is_one_like_any_other",
    f"{CHECKPOINTS}::test_a_task_goes_on_after_a_checkpoint_that_is_not_to_end_it",
    f"{CHECKPOINTS}::test_several_processes_are_taken_up_again_in_the_groups_of_the_task",
    f"{SHIM_CHECKPOINTS}::TestShimsCheckpoints::test_a_counter_in_memory_goes_on_counting_where_it_was",
)
LIMITS: Final = "tests/e2e/test_workloads_limits.py"
"""With an agent and a registry in the machine."""
WHOLE: Final = (
    "tests/conformance/shim_oci_test.py",
    APPARMOR,
    CHECKPOINTS,
    SHIM_CHECKPOINTS,
    f"{LIMITS}::test_limits_are_on_the_cgroup_and_change_in_place_without_a_restart[runc]",
    f"{LIMITS}::test_a_container_that_takes_too_much_memory_is_reported_as_oom_killed[runc]",
    f"{LIMITS}::test_a_sandboxes_limit_holds_for_all_its_containers_together[runc]",
    f"{LIMITS}::test_processors_and_io_weight_hold_and_change_in_place[runc]",
)


def _installed() -> Installed:
    """What the machine is made of; skips with what is lacking."""
    if platform.machine() != "x86_64":
        pytest.skip(f"no such machine on {platform.machine()}")
    missing = [name for name in ("runc", "crun", "conmon") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    try:
        found = installed(GUEST)
    except AgentError as error:
        pytest.skip(str(error))
    if not found.virtiofsd:
        pytest.skip("virtiofsd is not installed")
    return found


@pytest.fixture(scope="module")
def came(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What came of all of them."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    return run(_installed(), tmp_path_factory.mktemp("machine"), TESTS, SECONDS)


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.rpartition("::")[2])
def test_it_holds_under_another_kernel(came: Run, test: str) -> None:
    told = came.of(test)
    if failed := [one for one in told if one.outcome == "failed"]:
        pytest.fail("\n".join(f"{one.when}: {one.why}" for one in failed), pytrace=False)
    if skipped := [one for one in told if one.outcome == "skipped"]:
        pytest.skip(skipped[0].why)
    assert told, f"it was not run; the machine's console ends with:\n{came.console[-3000:]}"


@pytest.mark.soak
def test_whole_suites_hold_under_another_kernel(tmp_path: Path) -> None:
    told = run(_installed(), tmp_path, WHOLE, SECONDS * 2)
    assert [f"{one.test}: {one.why}" for one in told.told if one.outcome == "failed"] == []
    assert told.over, told.console[-3000:]
    assert len([one for one in told.told if one.outcome == "passed"]) > len(TESTS)
