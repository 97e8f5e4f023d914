"""docs/promises.md: what holds, by which test, with the figures that the tests printed.

scripts/promises FOLDER    take the figures of a run (`pytest --figures FOLDER`), keep them, write the page
scripts/promises           write the page anew from the figures that are kept (docs/promises.json)
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TOP: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from tests.figures import read, shown  # noqa: E402 - the folder of the project comes first

PAGE: Final = TOP / "docs" / "promises.md"
KEPT: Final = TOP / "docs" / "promises.json"
Kept = Mapping[str, Mapping[str, Sequence[object]]]


@dataclass(frozen=True)
class Promise:
    """One row: what is promised, and the tests (`path::function`) that prove it; none: it does not hold yet."""

    title: str
    text: str
    tests: tuple[str, ...] = ()
    lacks: str = ""
    """What is missing for the whole of it; empty: nothing that we know of."""


STORE: Final = "tests/unit/reconciler/store/test_sqlite.py"
RECOVERY: Final = "tests/unit/reconciler/store/test_recovery.py"
MENDING: Final = "tests/conformance/test_snapshotter_mending.py"
LOCK: Final = "tests/unit/reconciler/engine/test_lock.py"
LOSSES: Final = "tests/crash/test_losses.py"
NODE: Final = "tests/crash/test_faults_node.py"
RUNTIME: Final = "tests/crash/test_faults_runtime.py"
POWER: Final = "tests/crash/test_power_cuts.py"
CONFINED: Final = "tests/conformance/shim_oci_confinement_test.py"
PIDS: Final = "tests/crash/test_faults_pids.py"
DISK: Final = "tests/crash/test_faults_disk.py"
CRASH: Final = "tests/crash/test_crash.py"
CONTENT: Final = "tests/e2e/test_content_commands.py"
SURVIVAL: Final = "tests/e2e/test_survival.py"

PROMISES: Final = (
    Promise(
        "Crash-safe",
        "killed anywhere, the next run brings the node to what it should be",
        (
            f"{CRASH}::test_killed_at_a_step_of_an_apply_the_next_apply_converges",
            f"{CRASH}::test_after_each_of_20_rounds_of_killing_the_node_is_what_it_should_be",
            "tests/soak/test_crash_soak.py::test_killed_at_every_step_of_an_apply_the_next_one_converges",
        ),
    ),
    Promise(
        "Durable",
        "what was acknowledged is stored; a write that failed is no acknowledgement, and nothing is believed after it "
        "that was not written again",
        (
            f"{STORE}::test_a_write_that_fails_is_no_acknowledgement_and_the_store_goes_on_afterwards",
            f"{POWER}::test_fault_05_after_a_power_cut_what_was_acknowledged_is_there_and_what_is_committed_is_whole",
            f"{POWER}::test_fault_05_two_hundred_power_cuts_lose_nothing",
        ),
        "disks that write in another order than they were told to",
    ),
    Promise(
        "Starts always",
        "any single file of root deleted, cut or scrambled: ready within 10 s, says what was lost, gets it back, under "
        "the same processes",
        (
            f"{LOSSES}::test_any_single_file_of_root_may_be_lost_and_comes_back",
            f"{RECOVERY}::test_a_damaged_file_never_gives_an_object_that_was_not_written",
            f"{MENDING}::test_a_lost_or_damaged_ledger_is_known_again_from_the_folders",
            "tests/soak/test_losses_soak.py::test_every_file_of_root_may_be_lost_in_every_way",
        ),
        "a single file inside an unpacked image is not noticed",
    ),
    Promise(
        "Rot is found",
        "every blob is read again slowly; one that is wrong is fetched again by its digest; when asked, also files of "
        "unpacked images: what differs is unpacked anew",
        (
            f"{LOSSES}::test_a_blob_that_rots_is_found_and_fetched_again_while_the_agent_runs",
            f"{CONTENT}::test_fault_18_damage_to_an_unpacked_image_is_found_and_mended",
            f"{CONTENT}::test_fault_18_a_snapshot_that_a_container_rests_on_stays_and_the_container_is_named",
        ),
        "files of unpacked images are looked at only when asked",
    ),
    Promise(
        "Exactly-once start",
        "each attempt is started once, whatever was killed, stopped or started twice",
        (
            f"{CRASH}::test_after_each_of_20_rounds_of_killing_the_node_is_what_it_should_be",
            f"{NODE}::test_fault_26_an_agent_that_was_stopped_for_a_while_starts_nothing_twice",
        ),
    ),
    Promise(
        "Live restore",
        "stopping, killing and starting the agent restarts no container",
        (
            f"{SURVIVAL}::test_a_container_survives_kills_and_stops_of_the_agent_and_its_exit_is_known_afterwards",
            f"{RUNTIME}::test_an_agent_that_was_killed_takes_up_a_hundred_containers_within_seconds",
        ),
    ),
    Promise(
        "Drift is repaired",
        "monitors and runtimes that are killed, groups that are frozen or removed, namespaces and interfaces that go: "
        "all is back by the next look, at most 30 s later, and no neighbour is touched; rules that a firewall threw "
        "away are found in two minutes a sandbox",
        (
            f"{RUNTIME}::test_fault_02_a_monitor_that_is_killed_is_seen_at_once_and_its_container_runs_anew",
            f"{RUNTIME}::test_fault_04_a_runtime_that_is_killed_in_a_call_leaves_nothing_half_made",
            f"{RUNTIME}::test_fault_19_an_agent_that_runs_out_of_memory_costs_no_container",
            f"{RUNTIME}::test_fault_20_and_22_groups_and_networks_that_go_behind_our_back_are_back_with_the_next_look",
            "tests/conformance/test_cni.py::test_rules_that_somebody_flushed_are_found_and_their_sandboxes_detached",
        ),
    ),
    Promise(
        "Hostile workloads",
        "one that floods its log, forks without end, fills what it may or ignores signals is gone within its grace and "
        "5 s, and does not hold up the node",
        (f"{RUNTIME}::test_fault_28_hostile_containers_neither_hold_up_the_node_nor_outlive_their_grace",),
    ),
    Promise(
        "Never signals strangers",
        "no signal to a pid that was used again",
        (
            f"{PIDS}::test_fault_23_a_number_that_is_another_process_by_now_is_never_signalled",
            f"{PIDS}::test_fault_23_ten_thousand_numbers_that_came_back_are_never_signalled",
        ),
    ),
    Promise(
        "One writer",
        "a second agent ends within 2 s and changes nothing, also with another --state",
        (
            f"{NODE}::test_fault_24_a_second_agent_ends_at_once_whatever_state_it_was_given",
            f"{LOCK}::test_two_engines_of_one_root_exclude_each_other_whatever_their_state",
        ),
    ),
    Promise(
        "Full disks are got over",
        "no space, no inodes, read-only: told as DiskPressure, nothing half-made stays, it goes on alone when it can",
        (
            f"{DISK}::test_fault_08_a_full_disk_is_told_leaves_nothing_half_made_and_is_got_over_alone",
            f"{DISK}::test_fault_08_disk_pressure_is_a_condition_of_the_node_while_it_lasts",
            f"{DISK}::test_fault_08_a_write_or_sync_that_is_refused_is_got_over_or_told_and_the_next_apply_converges",
            f"{DISK}::test_fault_09_a_root_that_becomes_read_only_is_told_and_got_over_alone",
            f"{DISK}::test_fault_09_a_disk_that_fails_stops_no_workload_and_a_reboot_brings_all_back",
        ),
        "quotas on a real disk (no quota in the kernel that we test on)",
    ),
    Promise(
        "Clocks may jump",
        "ten years either way, an hour back, 1971: no restart, nothing expires",
        (f"{NODE}::test_fault_13_an_agent_under_another_clock_restarts_and_expires_nothing",),
    ),
    Promise(
        "No orphan, no leak",
        "nothing is left after a delete; making and deleting costs neither descriptors nor threads nor memory",
        (
            f"{NODE}::test_fault_25_making_and_deleting_leaks_nothing",
            f"{NODE}::test_fault_21_a_root_that_an_admin_unmounted_or_keeps_busy_leaves_no_mount_behind",
        ),
    ),
    Promise(
        "Works offline",
        "after a reboot without network and registry everything runs again, also what follows a tag; Sources keep "
        "their last good revision",
        (f"{SURVIVAL}::test_fault_12_after_a_reboot_without_any_network_everything_runs_again",),
    ),
    Promise(
        "Verified",
        "no byte of a blob is used before its digest, size and diff id match",
        ("tests/unit/core/content/test_store.py::test_a_blob_is_there_once_it_is_published_and_not_before",),
    ),
    Promise(
        "Durable images",
        "no file of a committed snapshot, and no blob, differs after a power cut",
        (
            f"{POWER}::test_fault_05_after_a_power_cut_what_was_acknowledged_is_there_and_what_is_committed_is_whole",
            f"{POWER}::test_fault_05_two_hundred_power_cuts_lose_nothing",
        ),
        "disks that write in another order than they were told to; other file systems than ext4",
    ),
    Promise(
        "GC safe",
        "nothing that is needed is removed over 10,000 random interleavings of pulls, deletes, collections and kills",
        (
            "tests/soak/test_collecting_soak.py::test_10000_interleavings_remove_nothing_that_is_needed",
            "tests/property/test_collecting.py::test_a_snapshot_in_use_is_not_even_named",
        ),
    ),
    Promise(
        "Least privilege",
        "no new privileges, the default set of capabilities, seccomp, masked and read-only paths, nothing inheritable; "
        "the ways out of 2019 to 2025 lead nowhere",
        (
            f"{CONFINED}::test_nothing_is_inheritable_and_the_set_is_the_default_one",
            f"{CONFINED}::test_masked_and_read_only_paths_hold",
            f"{CONFINED}::test_the_default_profile_refuses_what_tasks_do_not_need",
            "tests/conformance/shim_oci_escapes_test.py::test_every_number_that_is_told_has_its_test",
            "tests/e2e/test_security.py::test_privileged_is_refused_at_its_line_where_the_configuration_does_not_allow_it",
        ),
    ),
)


def cell(promise: Promise, kept: Kept) -> str:
    """The figures of a row's tests."""
    found = [(name, *said) for test in promise.tests for name, said in kept.get(test, {}).items()]
    return "; ".join(f"{name}: {shown(float(str(value)), str(unit))}" for name, value, unit in found) or "–"


def page(kept: Kept) -> str:
    """The whole page."""
    rows = [one for one in PROMISES if one.tests]
    lines = [
        "# Promises",
        "",
        "What holds now, by which test, with the figures that the tests printed (`pytest --figures FOLDER`, then",
        "`scripts/promises FOLDER`). A row without a figure is a yes or no. What is missing for the whole of a promise",
        "is said in its row; what does not hold yet would be listed below.",
        "",
        "| promise | | figures | tests | still lacking |",
        "|---|---|---|---|---|",
    ]
    for one in rows:
        tests = "<br>".join(f"`{test.partition('::')[0]}` {test.partition('::')[2]}" for test in one.tests)
        lines.append(f"| {one.title} | {one.text} | {cell(one, kept)} | {tests} | {one.lacks or '–'} |")
    if missing := [f"| {one.title} | {one.text} | {one.lacks} |" for one in PROMISES if not one.tests]:
        lines += ["", "## Not yet", "", "| promise | | what is missing |", "|---|---|---|", *missing]
    return "\n".join([*lines, ""])


def main(words: Sequence[str]) -> int:
    """The command line in this file's docstring."""
    kept: dict[str, dict[str, Sequence[object]]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    named = {test for one in PROMISES for test in one.tests}
    for folder in words:
        kept |= {test: dict(found) for test, found in read(Path(folder)).items()}
    kept = {test: kept[test] for test in sorted(kept) if test in named}
    KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(page(json.loads(KEPT.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
