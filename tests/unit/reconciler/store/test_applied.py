"""The files of what was applied by hand."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from core.clock import VirtualClock
from core.errors import Invalid
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Origin
from reconciler.store.applied import Kept, Loaded, forget_gone, keep_applied, load_applied, refill, set_manager, unsaid
from reconciler.store.functions import Manager, Wanted, apply_specs, existing, modify, request_deletion, vanish
from reconciler.store.memory import MemoryStore

WEB = Key(Kind.CONTAINER, "web")
LOGIN = Key(Kind.SECRET, "login")
FINALIZERS = {Kind.CONTAINER: "container"}
NOW = 50.0

Node = tuple[Path, MemoryStore]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return tmp_path, MemoryStore(VirtualClock())


def apply(node: Node, manager: str, *wanted: Wanted) -> None:
    root, store = node
    apply_specs(store, wanted, Manager(manager, take_over=True), finalizers=FINALIZERS)
    keep_applied(root, store, [want.key for want in wanted])


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root / "applied")) for path in (root / "applied").glob("*/*"))


def test_what_was_applied_is_read_back_as_it_was(node: Node) -> None:
    web = Wanted(WEB, {"image": "web", "args": ["ü"]}, {"a": "b"}, {"c": "d"}, Origin("web.yaml", 3))
    login = Wanted(LOGIN, {"data": {"k": "djE="}})
    apply(node, "set/front", web)
    apply(node, "hand", login)
    assert files(node[0]) == ["front/container-web.json", "hand/secret-login.json"]
    assert load_applied(node[0]).kept == (Kept(web, "set/front"), Kept(login, "hand"))


def test_the_files_are_their_users_alone(node: Node) -> None:
    apply(node, "hand", Wanted(LOGIN, {}))
    folder = node[0] / "applied" / "hand"
    assert stat.S_IMODE((folder / "secret-login.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_keeping_again_writes_nothing(node: Node) -> None:
    apply(node, "hand", Wanted(WEB, {}))
    path = node[0] / "applied" / "hand" / "container-web.json"
    before = path.stat()
    keep_applied(*node, [WEB])
    assert path.stat() == before


def test_a_change_replaces_the_file(node: Node) -> None:
    apply(node, "hand", Wanted(WEB, {"image": "a"}))
    apply(node, "hand", Wanted(WEB, {"image": "b"}))
    assert load_applied(node[0]).kept == (Kept(Wanted(WEB, {"image": "b"}), "hand"),)


def test_an_object_that_moves_to_another_set_moves_its_file(node: Node) -> None:
    apply(node, "set/a", Wanted(WEB, {}))
    apply(node, "set/b", Wanted(WEB, {}))
    assert files(node[0]) == ["b/container-web.json"]


@pytest.mark.parametrize("manager", ["source/edge", "engine"])
def test_what_a_source_or_the_engine_holds_is_not_kept(node: Node, manager: str) -> None:
    apply(node, "hand", Wanted(WEB, {}))
    apply(node, manager, Wanted(WEB, {}))
    assert files(node[0]) == []


def test_a_file_goes_when_its_objects_deletion_is_done(node: Node) -> None:
    root, store = node
    apply(node, "hand", Wanted(WEB, {}))
    request_deletion(store, WEB, NOW)
    keep_applied(root, store, [WEB])
    assert load_applied(root).kept == (Kept(Wanted(WEB, {}), "hand", NOW),)
    vanish(store, modify(store, WEB, lambda obj: replace(obj, finalizers=frozenset())), NOW)
    keep_applied(root, store, [WEB])
    assert files(root) == []


def test_a_lost_store_is_filled_again_and_what_was_going_goes_on_going(node: Node) -> None:
    root, store = node
    apply(node, "set/front", Wanted(WEB, {"image": "web"}))
    apply(node, "hand", Wanted(LOGIN, {}), Wanted(Key(Kind.CONTAINER, "old"), {}))
    request_deletion(store, Key(Kind.CONTAINER, "old"), NOW)
    keep_applied(root, store, [Key(Kind.CONTAINER, "old")])
    new = MemoryStore(VirtualClock())
    back = refill(new, load_applied(root).kept, finalizers=FINALIZERS, now=NOW)
    assert len(back) == 3
    assert [str(obj.key) for obj in new.list()] == ["container/old", "container/web", "secret/login"]
    web = existing(new, WEB)
    assert (web.manager, web.spec, web.finalizers) == ("set/front", {"image": "web"}, frozenset({"container"}))
    assert existing(new, Key(Kind.CONTAINER, "old")).deleted == NOW
    assert refill(new, load_applied(root).kept, finalizers=FINALIZERS, now=NOW) == []


def test_filling_again_leaves_alone_what_is_there(node: Node) -> None:
    root, store = node
    apply(node, "hand", Wanted(WEB, {"image": "kept"}))
    modify(store, WEB, lambda obj: replace(obj, spec={"image": "newer"}))
    assert refill(store, load_applied(root).kept, finalizers=FINALIZERS, now=NOW) == []
    assert existing(store, WEB).spec == {"image": "newer"}


def test_a_file_left_in_two_sets_fills_in_one_object(node: Node) -> None:
    root, _ = node
    apply(node, "set/b", Wanted(WEB, {}))
    (root / "applied" / "a").mkdir()
    (root / "applied" / "a" / "container-web.json").write_bytes(
        (root / "applied" / "b" / "container-web.json").read_bytes()
    )
    new = MemoryStore(VirtualClock())
    assert len(refill(new, load_applied(root).kept, finalizers=FINALIZERS, now=NOW)) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({"kind": "Container", "name": "../x", "spec": {}})])
def test_a_damaged_file_is_named_and_hides_no_other(node: Node, text: str) -> None:
    root, _ = node
    apply(node, "hand", Wanted(WEB, {}))
    damaged = root / "applied" / "hand" / "container-a.json"
    damaged.write_text(text)
    loaded = load_applied(root)
    assert loaded.damaged == (damaged,)
    assert [kept.wanted.key for kept in loaded.kept] == [WEB]


def test_files_that_say_what_the_store_says_need_no_second_look(node: Node) -> None:
    root, store = node
    apply(node, "set/front", Wanted(WEB, {"image": "web"}, {"a": "b"}, {"c": "d"}, Origin("web.yaml", 3)))
    apply(node, "hand", Wanted(LOGIN, {"data": {}}))
    apply(node, "source/web", Wanted(Key(Kind.VOLUME, "other"), {}))
    assert unsaid(load_applied(root), store) == []


def test_what_no_file_says_as_the_store_does_is_told(node: Node) -> None:
    root, store = node
    apply(node, "hand", Wanted(WEB, {"image": "web"}), Wanted(LOGIN, {}))
    loaded = load_applied(root)
    request_deletion(store, WEB, NOW)
    assert unsaid(loaded, store) == [WEB]
    apply(node, "set/front", Wanted(LOGIN, {}))
    assert unsaid(loaded, store) == [WEB, LOGIN]
    assert unsaid(load_applied(root), store) == [WEB]
    (root / "applied" / "front" / "secret-login.json").unlink()
    assert unsaid(load_applied(root), store) == [WEB, LOGIN]


def test_a_file_in_two_sets_or_of_a_version_that_the_store_never_had_is_not_believed(node: Node) -> None:
    root, store = node
    apply(node, "hand", Wanted(WEB, {"image": "web"}))
    (kept,) = load_applied(root).kept
    assert unsaid(Loaded((kept, kept), ()), store) == [WEB]
    assert unsaid(Loaded((replace(kept, version=store.version() + 1),), ()), store) == [WEB]


def test_where_a_file_is_damaged_every_object_is_looked_at(node: Node) -> None:
    root, store = node
    apply(node, "hand", Wanted(WEB, {"image": "web"}), Wanted(LOGIN, {}))
    (root / "applied" / "hand" / "container-web.json").write_text("{")
    assert unsaid(load_applied(root), store) == [WEB, LOGIN]


def test_nothing_applied_is_nothing_kept(tmp_path: Path) -> None:
    assert load_applied(tmp_path).kept == ()
    assert list(tmp_path.iterdir()) == []


def test_no_set_takes_the_place_of_what_has_none() -> None:
    assert set_manager("front") == "set/front"
    for name in ("hand", "../x", ""):
        with pytest.raises(Invalid):
            set_manager(name)


def test_what_a_kill_left_of_a_gone_object_is_removed_and_the_rest_kept(node: Node) -> None:
    root, store = node
    wanted = [Wanted(WEB, {"image": "web"}), Wanted(LOGIN, {})]
    apply_specs(store, wanted, Manager("hand"), finalizers={})
    keep_applied(root, store, [WEB, LOGIN])
    request_deletion(store, WEB, NOW)
    forget_gone(root, store)
    assert [one.wanted.key for one in load_applied(root).kept] == [LOGIN]


def test_nothing_is_forgotten_where_nothing_was_applied(node: Node) -> None:
    root, store = node
    forget_gone(root, store)
    assert not (root / "applied").exists()
