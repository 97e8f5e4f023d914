"""What moves where, row by row: version 1's names, the moves to 3 and 4, what containerd itself leaves to people."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from migrations.config.tree import BadDocument
from migrations.config.work import Outcome
from reconciler.model.identity import NAME
from reconciler.sources.manifests import read_documents
from tests.migrating import CRI, IMAGES, RUNTIME, Moved, ours, to

STREAMING = "io.containerd.grpc.v1.cri"
LINUX = "io.containerd.runtime.v1.linux"
MANAGER = "io.containerd.shim.v1.manager"


def cri(body: str, version: int = 2) -> str:
    """A document of one section of the CRI plugin, `SECTION` standing for its name in headers of its own."""
    return f"version = {version}\n[{CRI}]\n{body.replace('[.', f'[{CRI}.')}\n"


def runtimes(found: Moved) -> dict[str, Any]:
    table: dict[str, Any] = found.plugins[RUNTIME]["containerd"]["runtimes"]
    return table


# -------------------------------------------------------------------------------------------------------- version 1 → 2

NAMES = {
    "cri": "io.containerd.grpc.v1.cri",
    "cgroups": "io.containerd.monitor.v1.cgroups",
    "linux": LINUX,
    "scheduler": "io.containerd.gc.v1.scheduler",
    "bolt": "io.containerd.metadata.v1.bolt",
    "task": "io.containerd.runtime.v2.task",
    "opt": "io.containerd.internal.v1.opt",
    "restart": "io.containerd.internal.v1.restart",
    "tracing": "io.containerd.internal.v1.tracing",
    "otlp": "io.containerd.tracing.processor.v1.otlp",
    "aufs": "io.containerd.snapshotter.v1.aufs",
    "btrfs": "io.containerd.snapshotter.v1.btrfs",
    "devmapper": "io.containerd.snapshotter.v1.devmapper",
    "native": "io.containerd.snapshotter.v1.native",
    "overlayfs": "io.containerd.snapshotter.v1.overlayfs",
    "zfs": "io.containerd.snapshotter.v1.zfs",
    "diff-service": "io.containerd.service.v1.diff-service",
    "windows": "io.containerd.snapshotter.v1.windows",
    "windows-lcow": "io.containerd.snapshotter.v1.windows-lcow",
    "healthcheck": "io.containerd.grpc.v1.healthcheck",
    "io.containerd.grpc.v1.cri": "io.containerd.grpc.v1.cri",
}


@pytest.mark.parametrize(("short", "whole"), NAMES.items())
def test_a_plugin_of_version_1_gets_its_whole_name_in_tables_and_lists(short: str, whole: str) -> None:
    moved = to(2, f'disabled_plugins = ["{short}"]\nrequired_plugins = ["{short}"]\n[plugins."{short}"]\nx = 1\n')
    assert moved.values == {
        "version": 2,
        "disabled_plugins": [whole],
        "required_plugins": [whole],
        "plugins": {whole: {"x": 1}},
    }
    assert moved.entry(".x").to == f'plugins."{whole}".x'


@pytest.mark.parametrize("short", ["windows", "windows-lcow", "healthcheck"])
def test_a_name_that_had_to_be_guessed_is_told(short: str) -> None:
    assert "probably" in to(2, f"[plugins.{short}]\nx = 1\n").entry(".x").why


@pytest.mark.parametrize("version", ["", "version = 0\n", "version = 1\n"])
def test_a_missing_version_is_version_1(version: str) -> None:
    assert to(2, f"{version}[plugins.opt]\npath = '/x'\n").values["version"] == 2


def test_proxy_plugins_keep_their_names() -> None:
    text = '[proxy_plugins.stargz]\ntype = "snapshot"\naddress = "/run/s.sock"\n'
    assert to(4, text).values["proxy_plugins"] == tomllib.loads(text)["proxy_plugins"]


# -------------------------------------------------------------------------------------------------------- version 2 → 3


def test_the_sandbox_image_is_a_pinned_image() -> None:
    assert to(3, cri('sandbox_image = "p:1"')).plugins == {IMAGES: {"pinned_images": {"sandbox": "p:1"}}}


def test_the_sandbox_image_that_was_in_force_replaces_one_that_was_not() -> None:
    text = cri('sandbox_image = "old"') + f'[plugins."{IMAGES}".pinned_images]\nsandbox = "new"\n'
    moved = to(3, text)
    assert moved.plugins[IMAGES]["pinned_images"] == {"sandbox": "old"}
    assert moved.entry("pinned_images.sandbox").outcome is Outcome.INERT


@pytest.mark.parametrize(
    "line",
    [
        "max_concurrent_downloads = 7",
        'image_pull_progress_timeout = "1m"',
        "image_pull_with_sync_fs = true",
        "stats_collect_period = 30",
        '[.image_decryption]\nkey_model = ""',
        '[.registry]\nconfig_path = "/etc/certs"',
    ],
)
def test_what_is_about_images_goes_to_their_plugin(line: str) -> None:
    before = tomllib.loads(cri(line))["plugins"][STREAMING]
    assert to(3, cri(line)).plugins == {IMAGES: before}


def test_what_was_in_force_about_images_replaces_what_was_not() -> None:
    text = cri("stats_collect_period = 30") + f'[plugins."{IMAGES}"]\nstats_collect_period = 20\n'
    assert to(3, text).plugins[IMAGES] == {"stats_collect_period": 30}


@pytest.mark.parametrize(
    "line", ['snapshotter = "zfs"', "disable_snapshot_annotations = false", "discard_unpacked_layers = true"]
)
@pytest.mark.parametrize("more", ["", '[.containerd.runtimes.runc]\nruntime_type = "io.containerd.runc.v2"'])
def test_what_is_about_snapshots_goes_to_the_images_with_and_without_runtimes(line: str, more: str) -> None:
    moved = to(3, cri(f"[.containerd]\n{line}\n{more}"))
    assert moved.plugins[IMAGES] == tomllib.loads(line)


def test_a_runtimes_own_snapshotter_is_told_to_both_plugins_that_may_read_it() -> None:
    moved = to(3, cri('[.containerd.runtimes.vm]\nsnapshotter = "zfs"'))
    assert moved.plugins[IMAGES]["runtime_platforms"] == {"vm": {"snapshotter": "zfs"}}
    assert runtimes(moved) == {"vm": {"snapshotter": "zfs"}}


def test_the_misspelled_snapshot_of_a_runtime_is_its_snapshotter() -> None:
    assert runtimes(to(3, cri('[.containerd.runtimes.vm]\nsnapshot = "zfs"'))) == {"vm": {"snapshotter": "zfs"}}


def test_all_else_goes_to_the_plugin_of_runtimes() -> None:
    moved = to(3, cri("enable_selinux = true\nmax_container_log_line_size = 1\nnew_in_some_patch = 1"))
    assert moved.plugins == {
        RUNTIME: {"enable_selinux": True, "max_container_log_line_size": 1, "new_in_some_patch": 1}
    }


def test_what_the_plugin_of_runtimes_says_itself_wins() -> None:
    text = cri("enable_selinux = true") + f'[plugins."{RUNTIME}"]\nenable_selinux = false\n'
    moved = to(3, text)
    assert moved.plugins[RUNTIME] == {"enable_selinux": False}
    assert moved.entry('grpc.v1.cri".enable_selinux').outcome is Outcome.INERT


def test_the_folder_of_cni_programs_is_a_list() -> None:
    moved = to(3, cri('[.cni]\nbin_dir = "/usr/lib/cni"\nconf_dir = "/x"'))
    assert moved.plugins == {RUNTIME: {"cni": {"bin_dirs": ["/usr/lib/cni"], "conf_dir": "/x"}}}


def test_a_list_of_cni_folders_that_is_there_wins() -> None:
    assert to(3, cri('[.cni]\nbin_dir = "/a"\nbin_dirs = ["/b"]')).plugins[RUNTIME]["cni"] == {"bin_dirs": ["/b"]}


def test_the_sandbox_mode_is_the_sandboxer() -> None:
    assert runtimes(to(3, cri('[.containerd.runtimes.vm]\nsandbox_mode = "shim"'))) == {"vm": {"sandboxer": "shim"}}


def test_a_sandboxer_that_is_set_wins() -> None:
    text = cri('[.containerd.runtimes.vm]\nsandbox_mode = "podsandbox"\nsandboxer = "shim"')
    assert runtimes(to(3, text)) == {"vm": {"sandboxer": "shim"}}


def test_streaming_stays_where_it_is() -> None:
    lines = (
        'disable_tcp_service = false\nstream_server_address = "::"\nstream_server_port = "1"\n'
        'stream_idle_timeout = "1h"\nenable_tls_streaming = true\n'
        '[.x509_key_pair_streaming]\ntls_cert_file = "/c"\ntls_key_file = "/k"'
    )
    moved = to(3, cri(lines))
    assert moved.plugins == tomllib.loads(cri(lines))["plugins"]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("io.containerd.monitor.v1.cgroups", "io.containerd.monitor.task.v1.cgroups", "no_prometheus = true"),
        ("io.containerd.internal.v1.restart", "io.containerd.monitor.container.v1.restart", 'interval = "3s"'),
    ],
)
def test_a_renamed_plugin_takes_its_section_and_its_places_in_the_lists_along(old: str, new: str, line: str) -> None:
    text = f'version = 2\ndisabled_plugins = ["{old}"]\nrequired_plugins = ["{old}"]\n[plugins."{old}"]\n{line}\n'
    moved = to(3, text)
    assert moved.plugins == {new: tomllib.loads(line)}
    assert moved.values["disabled_plugins"] == moved.values["required_plugins"] == [new]


def test_core_scheduling_is_a_variable_of_the_shims() -> None:
    text = 'version = 2\n[plugins."io.containerd.runtime.v2.task"]\nsched_core = true\n'
    assert to(3, text).plugins == {MANAGER: {"env": ["SCHED_CORE=1"]}}
    more = f'{text}[plugins."{MANAGER}"]\nenv = ["A=1"]\n'
    assert to(3, more).plugins == {MANAGER: {"env": ["A=1", "SCHED_CORE=1"]}}


def test_core_scheduling_that_is_no_truth_value_is_an_error_with_its_place() -> None:
    with pytest.raises(BadDocument, match=r"config\.toml:3:1: .*sched_core must be true or false"):
        to(3, 'version = 2\n[plugins."io.containerd.runtime.v2.task"]\nsched_core = "yes"\n')


# -------------------------------------------------------------------------------------------------------- version 3 → 4


def server(found: Moved, name: str) -> Any:
    return found.plugins.get(f"io.containerd.server.v1.{name}")


def test_the_debug_socket_is_a_plugin_and_the_log_stays() -> None:
    moved = to(4, 'version = 3\n[debug]\naddress = "/d"\nuid = 1\ngid = 2\nlevel = "debug"\nformat = "json"\n')
    assert server(moved, "debug") == {"address": "/d", "uid": 1, "gid": 2}
    assert moved.values["debug"] == {"level": "debug", "format": "json"}


def test_an_owner_of_no_debug_socket_has_no_effect() -> None:
    moved = to(4, "version = 3\n[debug]\nuid = 1\n")
    assert moved.values == {"version": 4}
    assert moved.entry("uid").outcome is Outcome.INERT


def test_grpc_is_a_plugin_and_keeps_an_owner_of_0_beside_an_address() -> None:
    moved = to(4, 'version = 3\n[grpc]\naddress = "/g"\nuid = 0\nmax_recv_message_size = 5\n')
    assert server(moved, "grpc") == {"address": "/g", "uid": 0, "max_recv_message_size": 5}


def test_grpc_without_an_address_keeps_what_is_not_0() -> None:
    moved = to(4, "version = 3\n[grpc]\nuid = 0\ngid = 7\nmax_send_message_size = 5\n")
    assert server(moved, "grpc") == {"gid": 7, "max_send_message_size": 5}
    assert server(moved, "ttrpc") is None


def test_grpc_over_tcp_is_a_plugin_of_its_own_with_both_sizes() -> None:
    lines = "".join(f'tcp_{key} = "{key}"\n' for key in ("address", "tls_ca", "tls_cert", "tls_key", "tls_common_name"))
    moved = to(4, f"version = 3\n[grpc]\n{lines}max_recv_message_size = 5\nmax_send_message_size = 6\n")
    sizes = {"max_recv_message_size": 5, "max_send_message_size": 6}
    names = ("address", "tls_ca", "tls_cert", "tls_key", "tls_common_name")
    assert server(moved, "grpc-tcp") == {**{key: key for key in names}, **sizes}
    assert server(moved, "grpc") == sizes


def test_ttrpc_is_a_plugin_and_its_own_owner_stays() -> None:
    moved = to(4, 'version = 3\n[grpc]\naddress = "/g"\nuid = 9\n[ttrpc]\naddress = "/t"\nuid = 1\n')
    assert server(moved, "ttrpc") == {"address": "/t", "uid": 1}


def test_ttrpc_without_an_address_follows_grpc() -> None:
    moved = to(4, 'version = 3\n[grpc]\naddress = "/g"\nuid = 9\ngid = 8\n[ttrpc]\ngid = 3\n')
    assert server(moved, "ttrpc") == {"address": "/g.ttrpc", "uid": 9, "gid": 3}


def test_metrics_are_plugins_and_a_histogram_that_is_off_is_the_default() -> None:
    moved = to(4, 'version = 3\n[metrics]\naddress = "127.0.0.1:1"\ngrpc_histogram = true\n')
    assert server(moved, "metrics") == {"address": "127.0.0.1:1"}
    assert moved.plugins["io.containerd.metrics.v1.grpc-prometheus"] == {"grpc_histogram": True}
    assert to(4, "version = 3\n[metrics]\ngrpc_histogram = false\n").values == {"version": 4}


def test_a_block_of_version_4_that_is_there_is_never_touched() -> None:
    text = 'version = 3\n[grpc]\naddress = "/g"\nuid = 3\n[plugins."io.containerd.server.v1.grpc"]\naddress = "/n"\n'
    moved = to(4, text)
    assert server(moved, "grpc") == {"address": "/n"}
    assert moved.entry("grpc.uid").outcome is Outcome.INERT


def test_nothing_becomes_nothing() -> None:
    assert to(4, "").values == {"version": 4}


# ------------------------------------------------------------------------------------- what containerd leaves to people

MIRRORS = '[.registry.mirrors."docker.io"]\nendpoint = ["https://m.example", "http://n.example:5000/v2", "https://p/x"]'
CERTS = "certs.d/docker.io/hosts.toml"


def test_mirrors_become_hosts_toml_in_their_order_with_the_registry_last() -> None:
    moved = to(3, cri(MIRRORS))
    hosts = tomllib.loads(moved.file(CERTS))
    assert list(hosts["host"]) == ["https://m.example", "http://n.example:5000/v2", "https://p/x"]
    assert "server" not in hosts
    assert all(one["capabilities"] == ["pull", "resolve"] for one in hosts["host"].values())
    assert [one.get("override_path", False) for one in hosts["host"].values()] == [False, False, True]
    assert moved.plugins[IMAGES]["registry"] == {"config_path": "/out/certs.d"}
    assert moved.entry("endpoint").to == CERTS


def test_mirrors_of_any_registry_are_the_default_folder() -> None:
    moved = to(3, cri('[.registry.mirrors."*"]\nendpoint = ["https://m"]'))
    assert list(moved.result.files) == ["certs.d/_default/hosts.toml"]


def test_how_a_mirror_is_trusted_stands_in_its_block() -> None:
    tls = '[.registry.configs."m.example".tls]\nca_file = "/ca"\ncert_file = "/c"\nkey_file = "/k"'
    block = tomllib.loads(to(3, cri(f"{MIRRORS}\n{tls}")).file(CERTS))["host"]["https://m.example"]
    assert (block["ca"], block["client"]) == ("/ca", [["/c", "/k"]])


def test_how_a_registry_is_trusted_is_a_hosts_toml_of_its_own() -> None:
    moved = to(3, cri('[.registry.configs."r.example:5000".tls]\ninsecure_skip_verify = true'))
    hosts = tomllib.loads(moved.file("certs.d/r.example:5000/hosts.toml"))
    assert hosts == {"server": "https://r.example:5000", "skip_verify": True}
    assert moved.entry("insecure_skip_verify").outcome is Outcome.TRANSLATED


def test_mirrors_are_joined_with_the_folder_that_is_there() -> None:
    there = {"/old/docker.io/hosts.toml": b'# ours\n[host."https://first"]\n'}
    moved = to(3, cri(f'[.registry]\nconfig_path = "/old"\n{MIRRORS}'), hosts=there.get)
    assert list(tomllib.loads(moved.file(CERTS))["host"])[:2] == ["https://first", "https://m.example"]
    assert "# ours" in moved.file(CERTS)
    assert moved.plugins[IMAGES]["registry"] == {"config_path": "/out/certs.d:/old"}


def test_a_hosts_toml_of_ours_that_is_there_already_is_pointed_at() -> None:
    text = cri('[.registry.mirrors.a]\nendpoint = ["https://m"]')
    made = to(3, text).file("certs.d/a/hosts.toml").encode()
    again = to(3, text, hosts={"/out/certs.d/a/hosts.toml": made}.get)
    assert again.plugins[IMAGES]["registry"] == {"config_path": "/out/certs.d"}


def test_a_hosts_toml_that_cannot_be_read_is_an_error_and_no_way_past_the_mirror() -> None:
    with pytest.raises(BadDocument, match=r"/out/certs\.d/docker\.io/hosts\.toml"):
        to(3, cri(MIRRORS), hosts={"/out/certs.d/docker.io/hosts.toml": b"[host"}.get)


LOGINS = (
    '[.registry.configs."r.example".auth]\nusername = "joe"\npassword = "hunter2"\n'
    '[.registry.auths."https://s.example"]\nauth = "am9lOmh1bnRlcjI="\n'
)


@pytest.mark.parametrize("target", [2, 3, 4])
def test_logins_leave_the_document_and_lie_in_files(target: int) -> None:
    moved = to(target, cri(LOGINS, version=1).replace("version = 1\n", "") if target == 2 else cri(LOGINS))
    assert "hunter2" not in moved.text
    assert "hunter2" not in str(moved.result.entries)
    for name in ("secrets/registry-r.example.yaml", "secrets/registry-s.example.yaml"):
        assert 'password: "hunter2"' in moved.file(name)
        assert name in moved.result.private
    assert moved.entry("password").outcome is Outcome.DROPPED
    assert moved.result.dropped


@pytest.mark.parametrize("type", ["io.containerd.runc.v1", LINUX])
def test_a_shim_that_is_gone_is_replaced(type: str) -> None:
    moved = to(3, cri(f'[.containerd.runtimes.x]\nruntime_type = "{type}"'))
    assert runtimes(moved) == {"x": {"runtime_type": "io.containerd.runc.v2"}}


def test_what_the_first_shim_was_told_are_options_of_its_runtimes() -> None:
    text = cri(f'[.containerd.runtimes.x]\nruntime_type = "{LINUX}"') + f'[plugins."{LINUX}"]\n'
    moved = to(3, f'{text}runtime = "/usr/bin/crun"\nruntime_root = "/r"\nshim = "containerd-shim"\nno_shim = true\n')
    assert runtimes(moved)["x"]["options"] == {"BinaryName": "/usr/bin/crun", "Root": "/r"}
    assert moved.entry(".shim").outcome is Outcome.DEFAULT
    assert moved.entry(".no_shim").outcome is Outcome.DROPPED
    assert LINUX not in moved.plugins


def test_what_the_first_shim_was_told_makes_the_default_runtime_where_there_is_none() -> None:
    moved = to(3, '[plugins.linux]\nruntime = "/usr/bin/crun"\n')
    type = "io.containerd.runc.v2"
    assert runtimes(moved) == {"runc": {"runtime_type": type, "options": {"BinaryName": "/usr/bin/crun"}}}


def test_systemd_cgroups_are_an_option_of_the_default_runtime() -> None:
    moved = to(3, cri('systemd_cgroup = true\n[.containerd]\ndefault_runtime_name = "x"'))
    assert runtimes(moved)["x"]["options"] == {"SystemdCgroup": True}


def test_the_default_runtimes_own_table_is_a_runtime() -> None:
    moved = to(3, cri('[.containerd.default_runtime]\nruntime_type = "io.containerd.runc.v2"\nruntime_root = "/r"'))
    assert moved.plugins[RUNTIME]["containerd"] == {
        "default_runtime_name": "default",
        "runtimes": {"default": {"runtime_type": "io.containerd.runc.v2", "options": {"Root": "/r"}}},
    }


def test_the_runtime_for_what_is_not_trusted_is_a_runtime() -> None:
    moved = to(3, cri('[.containerd.untrusted_workload_runtime]\nruntime_type = "io.containerd.kata.v2"'))
    assert runtimes(moved) == {"untrusted": {"runtime_type": "io.containerd.kata.v2"}}


def test_engine_and_root_of_a_runtime_are_options() -> None:
    moved = to(3, cri('[.containerd.runtimes.x]\nruntime_type = "t"\nruntime_engine = "/e"\nruntime_root = "/r"'))
    assert runtimes(moved) == {"x": {"runtime_type": "t", "options": {"BinaryName": "/e", "Root": "/r"}}}


def test_the_path_of_criu_is_dropped_with_what_to_do() -> None:
    entry = to(3, cri('[.containerd.runtimes.x.options]\nCriuPath = "/criu"')).entry("CriuPath")
    assert (entry.outcome, "PATH" in entry.why) == (Outcome.DROPPED, True)


def test_no_cgroup_is_dropped_with_what_to_do() -> None:
    entry = to(3, cri("disable_cgroup = true")).entry("disable_cgroup")
    assert (entry.outcome, "delegate" in entry.why) == (Outcome.DROPPED, True)


def test_no_pivot_is_an_option_of_each_runtime_of_its_kind() -> None:
    text = cri('[.containerd]\nno_pivot = true\n[.containerd.runtimes.x]\nruntime_type = "io.containerd.runc.v2"')
    assert {name: one["options"] for name, one in runtimes(to(3, text)).items()} == {
        "x": {"NoPivotRoot": True},
        "runc": {"NoPivotRoot": True},
    }


@pytest.mark.parametrize("more", ["", '\n[.containerd.runtimes.runc]\nruntime_type = "io.containerd.runc.v2"'])
def test_aufs_becomes_overlayfs(more: str) -> None:
    moved = to(3, cri(f'[.containerd]\nsnapshotter = "aufs"{more}'))
    assert moved.plugins[IMAGES]["snapshotter"] == "overlayfs"
    assert moved.entry("snapshotter").outcome is Outcome.TRANSLATED


def test_a_folder_of_libraries_is_dropped_with_what_to_do() -> None:
    entry = to(3, 'version = 2\nplugin_dir = "/p"\n').entry("plugin_dir")
    assert (entry.outcome, "proxy plugin" in entry.why) == (Outcome.DROPPED, True)


def test_a_limit_on_downloads_is_said_where_verifiers_are_asked() -> None:
    moved = to(4, cri("max_concurrent_downloads = 9"))
    assert moved.plugins == {"io.containerd.transfer.v1.local": {"max_concurrent_downloads": 9}}


@pytest.mark.parametrize("line", ["image_pull_with_sync_fs = true", "[.containerd]\ndiscard_unpacked_layers = true"])
def test_what_would_pass_by_the_image_verifiers_is_refused_where_there_are_some(line: str) -> None:
    verifier = '[plugins."io.containerd.image-verifier.v1.bindir"]\nbin_dir = "/v"\n'
    with pytest.raises(BadDocument, match="without asking the image verifiers"):
        to(4, cri(line) + verifier)
    assert "no image verifier" in to(4, cri(line)).entry(line.split("\n")[-1].split(" ")[0]).why


def test_comments_and_order_stay() -> None:
    text = "# head\n\nversion = 2 # v\nstate = '/s'\n# r\nroot = '/r'\n"
    assert to(3, text).text == text.replace("version = 2", "version = 3")


# --------------------------------------------------------------------------------------------------------- to our own


def test_the_places_of_ours() -> None:
    moved = ours(
        'root = "/r"\nstate = "/s"\nversion = 2\n'
        + cri(
            'max_concurrent_downloads = 9\n[.cni]\nbin_dir = "/usr/lib/cni"\nconf_dir = "/n"\n'
            '[.containerd]\nsnapshotter = "native"\ndefault_runtime_name = "gpu"\n'
            '[.containerd.runtimes.gpu]\nruntime_type = "io.containerd.runc.v2"\n'
            '[.containerd.runtimes.gpu.options]\nBinaryName = "/usr/bin/nvidia"\nSystemdCgroup = true\n'
            '[.registry]\nconfig_path = "/c:/d"'
        ).replace("version = 2\n", "")
        + '[plugins."io.containerd.tracing.processor.v1.otlp"]\nendpoint = "http://c:4318"\n'
    )
    assert moved.values == {
        "root": "/r",
        "state": "/s",
        "version": 2,
        "transfer": {"parallel": 9, "hosts": ["/c", "/d"]},
        "network": {"plugins": ["/usr/lib/cni"], "lists": "/n"},
        "snapshots": {"default": "native"},
        "defaultRuntime": "gpu",
        "runtimes": {
            "gpu": {"sandboxer": "oci", "path": "/usr/bin/nvidia", "options": {"SystemdCgroup": "true"}},
        },
        "telemetry": {"endpoint": "http://c:4318"},
    }


def test_logins_are_secrets_of_ours_and_nothing_is_lost() -> None:
    moved = ours(cri(LOGINS))
    assert moved.entry("password").outcome is Outcome.TRANSLATED
    assert moved.entry("password").to == "secrets/registry-r.example.yaml"
    assert not moved.result.dropped


def test_a_login_is_a_secret_that_can_be_applied_and_two_hosts_have_two() -> None:
    hosts = ("r.example:5000", "R.example/5000", "r.example-5000", "x" * 90)
    moved = ours(
        cri("".join(f'[.registry.configs."{h}".auth]\nusername = "u"\npassword = "p: #\\"é"\n' for h in hosts))
    )
    assert len(moved.result.files) == len(hosts)
    for name, content in moved.result.files.items():
        (document,), faults = read_documents(content, name)
        assert (faults, document.faults) == ([], [])
        value = document.root.value
        assert isinstance(value, dict)
        assert NAME.fullmatch(value["metadata"]["name"])
        assert name == f"secrets/{value['metadata']['name']}.yaml"
        assert value["stringData"] == {"username": "u", "password": 'p: #"é'}


def test_a_token_is_a_secret_in_dockers_form() -> None:
    moved = ours(cri('[.registry.auths."https://r.example"]\nidentitytoken = "t"\n'))
    assert '"{\\"auths\\": {\\"r.example\\": {\\"identitytoken\\": \\"t\\"}}}"' in moved.file(
        "secrets/registry-r.example.yaml"
    )


@pytest.mark.parametrize("version", [3, 4])
def test_mirrors_and_logins_of_newer_documents_are_taken_out_too(version: int) -> None:
    registry = f'plugins."{IMAGES}".registry'
    text = (
        f'version = {version}\n[{registry}.mirrors.a]\nendpoint = ["https://m"]\n'
        f'[{registry}.configs."r.example".auth]\nusername = "joe"\npassword = "hunter2"\n'
    )
    moved = ours(text) if version == 4 else to(4, text)
    assert sorted(moved.result.files) == ["certs.d/a/hosts.toml", "secrets/registry-r.example.yaml"]
    assert "hunter2" not in moved.text


def shims(lines: str) -> Moved:
    return ours(f"version = 3\n{runtime_lines(lines)}")


def runtime_lines(lines: str) -> str:
    """`[NAME]` and `[NAME.options]` as tables of runtimes."""
    return lines.replace("[", f'[plugins."{RUNTIME}".containerd.runtimes.')


def test_a_shim_with_a_path_keeps_its_name_and_its_options() -> None:
    moved = shims(
        '[box]\nruntime_type = "io.containerd.kata.v2"\nruntime_path = "/opt/kata/containerd-shim-kata-v2"\n'
        'sandboxer = "shim"\n[box.options]\nConfigPath = "/etc/kata.toml"\nTypeUrl = "x"\n'
    )
    assert moved.values["runtimes"] == {
        "box": {
            "sandboxer": "shim",
            "path": "/opt/kata/containerd-shim-kata-v2",
            "options": {"sandbox": "service", "config": "/etc/kata.toml"},
        }
    }
    assert not moved.result.dropped


def test_a_shim_that_is_found_by_its_type_is_called_by_its_own_name() -> None:
    text = '[box]\nruntime_type = "io.containerd.kata.v2"\n[other]\nruntime_type = "io.containerd.kata.v2"\n'
    moved = ours(
        f'version = 3\n[plugins."{RUNTIME}".containerd]\ndefault_runtime_name = "other"\n{runtime_lines(text)}'
    )
    assert moved.values["runtimes"] == {"kata-v2": {"sandboxer": "shim"}}
    assert moved.values["defaultRuntime"] == "kata-v2"
    assert "write runtime: kata-v2" in moved.entry("other.runtime_type").why


def test_a_type_that_is_a_path_is_the_shims_program() -> None:
    moved = shims('[box]\nruntime_type = "/opt/bin/containerd-shim-box-v1"\n')
    assert moved.values["runtimes"] == {"box": {"sandboxer": "shim", "path": "/opt/bin/containerd-shim-box-v1"}}
