"""Where containerd's own migration is wrong, and ours is right: one test for each of its known bugs."""

from __future__ import annotations

import pytest

from migrations.config.tree import BadDocument
from migrations.config.work import Outcome
from tests.migrating import CRI, IMAGES, RUNTIME, to

MANAGER = "io.containerd.shim.v1.manager"
TASK = "io.containerd.runtime.v2.task"
RESTART = "io.containerd.monitor.container.v1.restart"
CGROUPS = "io.containerd.monitor.task.v1.cgroups"


def test_the_section_of_shims_outlives_the_section_of_tasks_beside_it() -> None:
    text = f'version = 3\n[plugins."{MANAGER}"]\nenv = ["A=1"]\nsocket_dir = "/s"\n'
    moved = to(4, f'{text}[plugins."{TASK}"]\nplatforms = ["linux/arm64"]\n')
    assert moved.plugins == {
        MANAGER: {"env": ["A=1"], "socket_dir": "/s"},
        TASK: {"platforms": ["linux/arm64"]},
    }


@pytest.mark.parametrize("section", ["[plugins.task]", f'version = 2\n[plugins."{TASK}"]'])
def test_core_scheduling_arrives_at_version_4(section: str) -> None:
    moved = to(4, f'{section}\nplatforms = ["linux/arm64"]\nsched_core = true\n')
    assert moved.plugins[MANAGER] == {"env": ["SCHED_CORE=1"]}


def test_a_snapshotter_arrives_without_a_table_of_runtimes() -> None:
    lines = 'snapshotter = "zfs"\ndiscard_unpacked_layers = true\ndisable_snapshot_annotations = false\n'
    moved = to(3, f"version = 2\n[{CRI}.containerd]\n{lines}")
    assert moved.plugins[IMAGES] == {
        "snapshotter": "zfs",
        "discard_unpacked_layers": True,
        "disable_snapshot_annotations": False,
    }


def test_a_runtimes_snapshotter_is_written_under_the_name_that_is_read() -> None:
    moved = to(4, f'version = 2\n[{CRI}.containerd.runtimes.vm]\nsnapshotter = "devmapper"\n')
    assert moved.plugins[IMAGES] == {"runtime_platforms": {"vm": {"snapshotter": "devmapper"}}}
    assert moved.plugins[RUNTIME]["containerd"]["runtimes"]["vm"]["snapshotter"] == "devmapper"


@pytest.mark.parametrize("key", ["disabled_plugins", "required_plugins"])
@pytest.mark.parametrize("short", [("restart", RESTART), ("cgroups", CGROUPS)])
def test_a_plugin_that_is_turned_off_stays_off_under_its_new_name(key: str, short: tuple[str, str]) -> None:
    assert to(4, f'{key} = ["{short[0]}"]\n').values == {"version": 4, key: [short[1]]}


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("io.containerd.internal.v1.restart", RESTART, "interval"),
        ("io.containerd.monitor.v1.cgroups", CGROUPS, "other"),
    ],
)
def test_a_renamed_plugins_new_section_wins_over_its_old_one(old: str, new: str, key: str) -> None:
    moved = to(3, f'version = 2\n[plugins."{old}"]\n{key} = "1s"\n[plugins."{new}"]\n{key} = "2s"\n')
    assert moved.plugins == {new: {key: "2s"}}
    assert moved.entry(f'{old}".{key}').outcome is Outcome.INERT


def test_a_mirror_is_not_passed_by_because_a_hosts_toml_cannot_be_read() -> None:
    mirrors = f'version = 2\n[{CRI}.registry.mirrors."docker.io"]\nendpoint = ["https://m"]\n'
    with pytest.raises(BadDocument, match=r"is no hosts\.toml"):
        to(3, mirrors, hosts={"/out/certs.d/docker.io/hosts.toml": b"server = "}.get)


def test_mirrors_beside_a_config_path_do_not_keep_the_plugin_from_loading() -> None:
    registry = (
        f'version = 2\n[{CRI}.registry]\nconfig_path = "/c"\n[{CRI}.registry.mirrors.a]\nendpoint = ["https://m"]\n'
    )
    assert to(4, registry).plugins[IMAGES]["registry"] == {"config_path": "/out/certs.d:/c"}
