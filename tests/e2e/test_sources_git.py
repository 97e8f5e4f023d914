"""From a commit to a running container, and what a bad commit does: nothing."""

import io
import json
import os
import signal
import tarfile
from collections.abc import Iterator

import pytest

from tests.e2e.git_stage import Fleet, fleet, volume, volumes
from tests.e2e.workloads import document, eventually
from tests.git_server import SshGit, missing_tools
from tests.registry import Registry, image_layouts

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(bool(missing_tools()), reason=f"not installed: {missing_tools()}"),
]


@pytest.fixture(scope="module")
def edge(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(registry, tmp_path_factory.mktemp("git")) as made:
        eventually(lambda: "the agent" in made.stage.node.cli("status").stdout, "the agent")
        yield made


def test_a_commit_becomes_a_running_container_and_the_next_one_replaces_it(edge: Fleet) -> None:
    repository = edge.repository("app")
    container = edge.stage.container("app", "sleep 1000", env=[{"name": "SITE", "value": "${values.site}"}])
    first = repository.commit({"nodes/edge/app.yaml": _yaml(container), "other/x.yaml": "]"})
    out = edge.add("app", "--path", "nodes/edge", "--value", "site=north").must()
    assert f"Synced: source/app at {first[:12]}, 1 objects" in out
    pid = edge.stage.pid("app")
    assert edge.stage.exec("app", "echo $SITE") == "north\n"
    found = edge.stage.there("container/app")
    assert (found.manager, str(found.origin)) == ("source/app", "nodes/edge/app.yaml:1")
    assert found.origin is not None
    assert found.origin.revision == first
    again = {**container, "spec": {**container["spec"], "command": ["sh", "-c", "sleep 2000"]}}
    second = repository.commit({"nodes/edge/app.yaml": _yaml(again)})
    edge.sync("app").must()
    assert edge.stage.pid("app") != pid
    status = edge.status("app")
    assert (status["revision"], status["observedRevision"], status["lastGoodRevision"]) == (second, second, second)
    assert status["inventory"] == ["container/app"]


def test_an_image_comes_out_of_an_archive_in_the_repository(edge: Fleet) -> None:
    repository = edge.repository("boxed")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted(image_layouts("busybox")[0].iterdir()):
            tar.add(path, path.name)
    image = document("Image", "boxed", {"ref": "example.org/boxed:1", "archive": "../images/box.tar"})
    container = edge.stage.container("boxed", "sleep 1000", image="boxed")
    both = json.dumps(image) + "\n---\n" + json.dumps(container)
    repository.commit({"nodes/app.yaml": both, "images/box.tar": archive.getvalue()})
    edge.add("boxed", "--path", "nodes").must()
    assert edge.stage.exec("boxed", "echo hello") == "hello\n"
    (taken,) = (edge.stage.node.root / "sources/boxed/archives").iterdir()
    assert taken.read_bytes() == archive.getvalue()
    assert edge.stage.there("image/boxed").spec["archive"] == str(taken)
    pid = edge.stage.pid("boxed")
    taken.unlink()  # what came from it stays, and a revision that names it takes it out again
    repository.commit({"nodes/app.yaml": both + "\n", "images/box.tar": archive.getvalue()})
    edge.sync("boxed").must()
    assert taken.read_bytes() == archive.getvalue()
    assert edge.stage.pid("boxed") == pid
    wrong = both.replace("../images/box.tar", "../images/none.tar")
    repository.commit({"nodes/app.yaml": wrong, "images/box.tar": archive.getvalue()})
    assert edge.sync("boxed").code == 1
    said = edge.stalled("boxed")["message"]
    assert "nodes/app.yaml:1:" in said
    assert "../images/none.tar" in said
    assert edge.stage.pid("boxed") == pid
    edge.stage.delete("source/boxed")
    assert not (edge.stage.node.root / "sources/boxed").exists()


def test_a_commit_on_an_ssh_server_becomes_an_object(edge: Fleet) -> None:
    repository = edge.repository("by-ssh")
    tip = repository.commit({"a.yaml": volume("by-ssh")})
    with SshGit(edge.server.folder / "sshd") as server:
        login = {"sshKey": server.client.read_text(), "knownHosts": server.known_hosts.read_text()}
        edge.stage.must_apply(document("Secret", "deploy-key", {"stringData": login}))
        url = server.url(repository.folder)
        said = edge.run("source", "add", "by-ssh", "--git", url, "--secret", "deploy-key", "--branch", "main")
    assert f"at {tip[:12]}" in said.must()
    assert edge.names("by-ssh") == ["by-ssh"]


def test_fault_15_a_commit_with_one_invalid_file_of_fifty_changes_nothing_and_names_its_line(edge: Fleet) -> None:
    repository = edge.repository("fifty")
    files = volumes("fifty", 49)
    good = repository.commit(files)
    edge.add("fifty").must()
    before = {one.key: one.version for one in edge.stage.store.list() if one.manager == "source/fifty"}
    bad = "apiVersion: reconciler/v1\nkind: Volume\nmetadata: {name: bad}\nspec: {retain: maybe}\n"
    new = repository.commit({**files, "added.yaml": volume("added"), "bad.yaml": bad})
    said = edge.sync("fifty")
    assert said.code == 1
    assert "bad.yaml:4:16: spec.retain: is not true or false" in said.err
    stalled = edge.stalled("fifty")
    assert (stalled["reason"], "bad.yaml:4:16" in stalled["message"]) == ("Invalid", True)
    after = {one.key: one.version for one in edge.stage.store.list() if one.manager == "source/fifty"}
    assert after == before
    status = edge.status("fifty")
    assert (status["observedRevision"], status["failedRevisions"]) == (good, [new])
    assert status["lastError"]["category"] == "invalid"
    repository.commit({**files, "added.yaml": volume("added")})
    edge.sync("fifty").must()
    assert len(edge.names("fifty")) == 50


def test_fault_16_a_repository_that_is_emptied_or_loses_most_removes_nothing_unless_that_is_meant(edge: Fleet) -> None:
    repository = edge.repository("mass")
    files = volumes("mass", 6)
    repository.commit(files)
    edge.add("mass").must()
    for left in ({"README": "gone"}, dict(list(files.items())[:2])):
        repository.commit(left)
        assert edge.sync("mass").code == 1
        stalled = edge.stalled("mass")
        assert stalled["reason"] == "PruneRefused"
        assert "volume/mass-05" in stalled["message"]
        assert len(edge.names("mass")) == 6
    repository.commit(dict(list(files.items())[:4]))
    edge.sync("mass").must()
    assert len(edge.names("mass")) == 4, "a third may go"
    repository.commit({"README": "gone"})
    assert edge.sync("mass").code == 1
    edge.add("mass", "--allow-mass-prune").must()
    assert edge.names("mass") == []


def test_fault_14_a_force_push_a_lost_branch_and_a_server_that_is_down_leave_the_last_good_revision(
    edge: Fleet,
) -> None:
    repository = edge.repository("rewound")
    good = repository.commit({"a.yaml": volume("rewound-a")})
    edge.add("rewound", "--branch", "main").must()
    repository.commit({"b.yaml": volume("rewound-b")}, onto=None)
    assert edge.sync("rewound").code == 1
    assert edge.stalled("rewound")["reason"] == "Rewound"
    assert edge.names("rewound") == ["rewound-a"]
    repository.git("branch", "-m", "main", "elsewhere")
    gone = edge.sync("rewound")
    assert (gone.code, "main" in gone.err) == (1, True)
    assert edge.names("rewound") == ["rewound-a"]
    edge.server.stop()
    try:
        assert edge.sync("rewound").code == 1
        assert edge.status("rewound")["observedRevision"] == good
    finally:
        edge.server.start()
    repository.git("branch", "-m", "elsewhere", "main")
    edge.add("rewound", "--branch", "main", "--allow-rewind", "--allow-mass-prune").must()
    assert edge.names("rewound") == ["rewound-b"]


def test_two_sources_that_want_one_object_leave_it_to_the_first(edge: Fleet) -> None:
    for name in ("first", "second"):
        edge.repository(name).commit({"a.yaml": volume("disputed"), "b.yaml": volume(f"{name}-own")})
    edge.add("first").must()
    said = edge.add("second")
    assert said.code == 1
    assert "volume/disputed belongs to source/first" in said.err
    assert edge.names("second") == []
    assert edge.stage.there("volume/disputed").manager == "source/first"


def test_apply_over_what_a_source_manages_is_refused_and_take_over_has_the_source_say_so(edge: Fleet) -> None:
    edge.repository("owner").commit({"a.yaml": volume("owned")})
    edge.add("owner").must()
    by_hand = document("Volume", "owned", {"retain": True})
    refused = edge.stage.apply(by_hand)
    assert refused.returncode == 1
    assert "volume/owned belongs to source/owner" in refused.stderr
    edge.stage.must_apply(by_hand, options=("--take-over",))
    assert edge.stage.there("volume/owned").manager == "hand"
    assert "volume/owned belongs to hand" in edge.stalled("owner")["message"]
    edge.stage.delete("volume/owned")
    eventually(lambda: edge.names("owner") == ["owned"], "the source makes it anew")


def test_a_reference_to_nothing_is_waited_for_and_resolved_by_hand(edge: Fleet) -> None:
    mounts = [{"path": "/data", "volume": "by-hand"}]
    container = edge.stage.container("needs", "sleep 1000", mounts=mounts)
    edge.repository("waits").commit({"a.yaml": _yaml(container), "b.yaml": volume("waits")})
    edge.add("waits", "--no-wait").must()
    eventually(lambda: edge.stage.condition("source/waits", "Reconciling").get("reason") == "WaitingFor", "it waits")
    message = edge.stage.condition("source/waits", "Reconciling")["message"]
    assert "there is no volume/by-hand (a.yaml:1:" in message
    assert edge.names("waits") == []
    edge.stage.must_apply(document("Volume", "by-hand", {"retain": False}))
    eventually(lambda: edge.names("waits") == ["needs", "waits"], "the revision is applied")


def test_a_suspended_source_is_left_alone_and_a_resumed_one_catches_up(edge: Fleet) -> None:
    repository = edge.repository("calm")
    repository.commit({"a.yaml": volume("calm-a")})
    edge.add("calm").must()
    edge.run("source", "suspend", "calm", "--for", "1h", "--reason", "measuring").must()
    repository.commit({"a.yaml": volume("calm-a"), "b.yaml": volume("calm-b")})
    refused = edge.sync("calm")
    assert (refused.code, "suspended" in refused.err) == (1, True)
    eventually(lambda: edge.stage.condition("source/calm", "Ready").get("reason") == "Suspended", "it says so")
    assert "measuring" in edge.stage.condition("source/calm", "Ready")["message"]
    assert edge.names("calm") == ["calm-a"]
    edge.run("source", "resume", "calm").must()
    eventually(lambda: edge.names("calm") == ["calm-a", "calm-b"], "it catches up")


def test_a_rollback_holds_until_the_source_moves_on_or_is_resumed(edge: Fleet) -> None:
    repository = edge.repository("back")
    first = repository.commit({"a.yaml": volume("back-a")})
    edge.add("back").must()
    second = repository.commit({"a.yaml": volume("back-a"), "b.yaml": volume("back-b")})
    edge.sync("back").must()
    edge.run("rollback", "--source", "back", "--reason", "b is bad").must()
    assert edge.names("back") == ["back-a"]
    edge.sync("back").must()
    assert edge.status("back")["observedRevision"] == first
    assert edge.stage.condition("source/back", "Ready")["reason"] == "RolledBack"
    history = edge.run("history", "back").must()
    assert [line.split()[0] for line in history.splitlines()[1:]] == ["back-1", "back-2", "back-3"]
    assert "in force (rollback to back-1)" in history
    third = repository.commit({"c.yaml": volume("back-c"), "a.yaml": volume("back-a")})
    edge.sync("back").must()
    assert edge.names("back") == ["back-a", "back-c"]
    assert edge.status("back")["observedRevision"] == third
    edge.run("rollback", second[:8], "--source", "back").must()
    assert edge.names("back") == ["back-a", "back-b"]
    edge.run("source", "resume", "back").must()
    eventually(lambda: edge.names("back") == ["back-a", "back-c"], "the newest is in force again")


def test_a_hold_on_the_node_keeps_new_revisions_out_until_it_is_released(edge: Fleet) -> None:
    repository = edge.repository("held")
    repository.commit({"a.yaml": volume("held-a")})
    edge.add("held").must()
    edge.run("hold", "--for", "1h", "--reason", "demo").must()
    try:
        repository.commit({"a.yaml": volume("held-a"), "b.yaml": volume("held-b")})
        said = edge.run("source", "sync", "held", "--timeout", "2s")
        assert (said.code, "demo" in said.err) == (3, True)
        assert edge.names("held") == ["held-a"]
    finally:
        edge.run("hold", "--release").must()
    eventually(lambda: edge.names("held") == ["held-a", "held-b"], "it is applied at once")


def test_an_agent_that_is_killed_and_started_again_goes_on_where_it_was(edge: Fleet) -> None:
    repository = edge.repository("reborn")
    container = edge.stage.container("reborn", "sleep 1000")
    repository.commit({"a.yaml": _yaml(container)})
    edge.add("reborn").must()
    pid = edge.stage.pid("reborn")
    agent = edge.stage.node.running[-1]
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    new = repository.commit({"a.yaml": _yaml(container), "b.yaml": volume("reborn")})
    edge.stage.node.spawn("agent")
    eventually(lambda: edge.status("reborn")["observedRevision"] == new, "the new commit is applied")
    assert edge.stage.pid("reborn") == pid
    assert edge.names("reborn") == ["reborn", "reborn"]


def test_a_source_may_hold_sources_but_not_itself_nor_files_of_the_node(edge: Fleet) -> None:
    child = edge.repository("child")
    child.commit({"a.yaml": volume("grandchild")})
    repository = edge.repository("parent")
    url = {"url": edge.server.url("child.git")}
    whole = _yaml(document("Source", "child", {"git": url, "interval": "1h"}))
    local = _yaml(document("Source", "local", {"git": {"url": f"file://{child.folder}"}}))
    folder = _yaml(document("Source", "folder", {"folder": "/etc"}))
    itself = _yaml(document("Source", "parent", {"git": url}))
    repository.commit({"a.yaml": whole, "b.yaml": local, "c.yaml": folder, "d.yaml": itself})
    said = edge.add("parent")
    assert said.code == 1
    faults = " ".join(edge.status("parent")["faults"])
    for words in ("b.yaml:1:", "c.yaml:1:", "d.yaml:1:", "a file of the node", "a folder of the node", "hold itself"):
        assert words in faults
    repository.commit({"a.yaml": whole})
    edge.sync("parent").must()
    eventually(lambda: edge.names("child") == ["grandchild"], "the child's own objects come")
    assert edge.stage.there("source/child").manager == "source/parent"


def test_a_source_that_is_deleted_takes_its_objects_along_or_leaves_them_to_anybody(edge: Fleet) -> None:
    for name in ("goes", "stays"):
        edge.repository(name).commit({"a.yaml": volume(f"{name}-a")})
    edge.add("goes").must()
    edge.add("stays", "--no-prune").must()
    edge.run("delete", "source/goes", "source/stays", "--timeout", "20s").must()
    assert edge.stage.get("volume/goes-a") is None
    assert not (edge.stage.node.root / "sources/goes").exists()
    assert edge.stage.there("volume/stays-a").manager == "orphan"
    edge.add("stays").must()
    assert edge.stage.there("volume/stays-a").manager == "source/stays"


def _yaml(one: object) -> str:
    import json

    return json.dumps(one) + "\n"
