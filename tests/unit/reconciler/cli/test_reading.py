"""get, describe, events, status, wait: what they print, and their exit codes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from reconciler.cli.columns import columns_of, row_of
from reconciler.cli.texts import table
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object
from reconciler.store.port import Event
from tests.unit.reconciler.cli.conftest import Cli
from tests.unit.reconciler.cli.objects import NOW, bad_image, job, login, web

EVENT = Event(0, Key(Kind.CONTAINER, "web"), "Normal", "Started", "attempt 1", NOW - 9, NOW - 5, 3, {"app": "web"})
OTHER = Event(0, Key(Kind.IMAGE, "web"), "Warning", "FetchingNotFound", "no such tag", NOW, NOW)


def shown(kind: Kind | None, *objects: Object, wide: bool = False) -> str:
    columns = columns_of(kind, wide=wide)
    return table([column.head for column in columns], [row_of(obj, columns, NOW) for obj in objects])


def test_the_table_of_containers() -> None:
    assert shown(Kind.CONTAINER, web(), job()) == (
        "NAME  READY  STATUS     RESTARTS  IMAGE  AGE\n"
        "web   True   Running    2         web    1h1m\n"
        "job   False  Completed  0         web    1h1m"
    )


def test_the_wide_table_of_containers_tells_more() -> None:
    assert shown(Kind.CONTAINER, web(), wide=True) == (
        "NAME  READY  STATUS   RESTARTS  IMAGE  SANDBOX  PID  EXIT  AGE   MANAGER  ORIGIN           MESSAGE\n"
        "web   True   Running  2         web    web      77   -     1h1m  hand     edge/web.yaml:7  -"
    )


def test_the_table_of_everything_says_what_holds_things_up() -> None:
    assert shown(None, bad_image(), web(), login()) == (
        "NAME           READY  STATUS            AGE   MESSAGE\n"
        "image/web      False  FetchingNotFound  1h1m  "
        "fetching: not found: registry.local:5000/web:9 has no such tag\n"
        "container/web  True   Running           1h1m  -\n"
        "secret/login   True   Stored            1h1m  -"
    )


def test_a_spec_that_nobody_has_looked_at_is_pending_and_one_that_goes_is_deleting() -> None:
    newer, going = web(generation=2), web(deleted=NOW)
    assert shown(Kind.CONTAINER, newer, going).split("\n")[1:] == [
        "web   Unknown  Pending   2         web    1h1m",
        "web   True     Deleting  2         web    1h1m",
    ]


def test_every_kind_has_a_table() -> None:
    assert all("NAME" in shown(kind, wide=wide) for kind in Kind for wide in (False, True))


def test_where_no_store_is_nothing_is_found_and_nothing_is_made(cli: Cli, tmp_path: Path) -> None:
    for words in (("get", "all"), ("get", "container"), ("get", "events"), ("events",), ("status",)):
        code, _, err = cli(*words)
        assert (code, "nothing found" in err or words == ("status",)) == (0, True)
    assert cli("get", "all", "-o", "json")[:2] == (0, '{\n  "items": []\n}\n')
    assert cli("get", "container", "web")[0] == 1
    assert cli("describe", "container", "web")[0] == 1
    assert list(tmp_path.iterdir()) == []


def test_the_shape_of_json_follows_the_question(cli: Cli) -> None:
    cli.fill(web())
    one = json.loads(cli("get", "container", "web", "-o", "json")[1])
    many = json.loads(cli("get", "containers", "-o", "json")[1])
    assert [*one] == ["apiVersion", "kind", "metadata", "spec", "status"]
    assert many == {"items": [one]}
    assert (one["kind"], one["metadata"]["name"], one["spec"]["image"]) == ("Container", "web", "web")


def test_yaml_and_names_are_printed_too(cli: Cli) -> None:
    cli.fill(web(), login())
    assert cli("get", "container/web", "-o", "yaml")[1].startswith("apiVersion: reconciler/v1\nkind: Container\n")
    assert cli("get", "all", "-o", "name")[1] == "container/web\nsecret/login\n"


def test_kinds_are_taken_in_any_case_and_number(cli: Cli) -> None:
    cli.fill(web())
    for kind in ("container", "Containers", "CONTAINER"):
        assert cli("get", kind, "-o", "name")[1] == "container/web\n"
    code, _, err = cli("get", "pods")
    assert code == 1
    assert err.startswith("error: invalid: there is no kind 'pods'\n       Kinds are: Image,")


def test_labels_select_what_is_listed(cli: Cli) -> None:
    cli.fill(web(), job())
    assert cli("get", "containers", "-l", "app=web", "-o", "name")[1] == "container/web\n"
    assert cli("get", "containers", "-l", "!app", "-o", "name")[1] == "container/job\n"
    assert cli("get", "containers", "-l", "app!=web", "-o", "name")[1] == "container/job\n"
    assert cli("get", "containers", "-l", "a=b=c(")[0] == 1


def test_nothing_that_reads_prints_a_secret(cli: Cli) -> None:
    cli.fill(login())
    asked = [("get", "secret", "login", "-o", form) for form in ("json", "yaml", "wide", "name")]
    asked += [("get", "all", "-o", "yaml"), ("describe", "secret", "login")]
    for words in asked:
        code, out, err = cli(*words)
        assert code == 0
        assert not re.search("hunter|aHVudGVy", out + err)
    assert json.loads(cli("get", "secret", "login", "-o", "json")[1])["spec"] == {
        "data": {"user": "***"},
        "stringData": {"pass": "***"},
    }


def test_a_description_says_where_it_came_from_and_what_is_waited_for(cli: Cli) -> None:
    cli.fill(bad_image(), events=(OTHER,))
    code, out, _ = cli("describe", "image/web")
    assert code == 0
    for line in (
        "Origin:      edge/web.yaml:7",
        "Generation:  1 (seen: 1)",
        "  ref: registry.local:5000/web:9",
        "  FetchingNotFound: registry.local:5000/web:9 has no such tag",
        "  last error: fetching: not found: registry.local:5000/web:9 has no such tag",
        "         tags there: 1.1, 1.2",
        "  next try: 2023-11-14T22:14:20.000Z",
    ):
        assert line in out.splitlines()
    assert re.search(r"Warning +FetchingNotFound +1 +no such tag", out)


def test_events_are_listed_oldest_first_and_selected(cli: Cli) -> None:
    cli.fill(events=(EVENT, OTHER))
    rows = cli("events")[1].splitlines()
    assert re.fullmatch(r"LAST +TYPE +OBJECT +REASON +COUNT +MESSAGE", rows[0])
    assert re.search(r"Normal +container/web +Started +3 +attempt 1", rows[1])
    assert len(cli("events", "-l", "app=web")[1].splitlines()) == 2
    assert len(cli("events", "image/web")[1].splitlines()) == 2
    (item,) = json.loads(cli("get", "events", "-l", "app=web", "-o", "json")[1])["items"]
    assert (item["kind"], item["spec"]["object"], item["status"]["count"]) == ("Event", "container/web", 3)


def test_status_is_0_only_when_all_are_ready(cli: Cli) -> None:
    cli.fill(web(), job())
    code, out, _ = cli("status")
    assert (code, "Objects container 2/2" in out, "All ready." in out) == (0, True, True)
    assert cli("status", "--oneline")[1] == "2/2 ready, no agent\n"


def test_status_names_what_is_not_ready(cli: Cli) -> None:
    cli.fill(web(), bad_image())
    code, out, _ = cli("status")
    assert code == 1
    assert re.search(r"image/web +FetchingNotFound +fetching: not found: registry", out)
    assert cli("status", "--oneline")[:2] == (1, "1/2 ready, no agent: image/web FetchingNotFound\n")


def test_waiting_ends_at_once_when_it_is_so_and_with_3_when_the_time_is_over(cli: Cli) -> None:
    cli.fill(web(), job(), bad_image())
    assert cli("wait", "container/web")[:2] == (0, "container/web: Ready\n")
    assert cli("wait", "container/job", "--for", "Exited")[0] == 0
    assert cli("wait", "container/none", "--for", "Deleted")[0] == 0
    code, _, err = cli("wait", "image/web", "--timeout", "1ms")
    assert code == 3
    assert err.startswith("error: image/web: timed out: not Ready after 0.001 s\n       it is FetchingNotFound: ")


def test_text_from_outside_moves_no_cursor(cli: Cli) -> None:
    cli.fill(replace(web(), spec={"image": "web", "sandbox": "web", "command": ["\x1b[2J\x07"]}))
    assert "\x1b" not in cli("describe", "container", "web")[1]
