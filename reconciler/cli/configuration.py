"""What `config show` and `config validate` do: the configuration with its origins, and all that is wrong with one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import click
from click.core import ParameterSource

from reconciler.cli.context import Node
from reconciler.cli.output import say_items, say_one
from reconciler.cli.source import has_agent
from reconciler.cli.terminal import complain_in_words, printable, say, warn
from reconciler.cli.texts import table
from reconciler.config import BadConfig, Loaded, config_file, load
from reconciler.model.config import Config
from reconciler.model.identity import Kind
from reconciler.model.problems import shown
from reconciler.model.settings import Path, flat, plain, without_passwords

OPTIONS: Final[Mapping[Path, tuple[str, str]]] = {
    ("root",): ("--root", "RECONCILER_ROOT"),
    ("state",): ("--state", "RECONCILER_STATE"),
}
ENVIRONMENT: Final[Mapping[Path, tuple[str, ...]]] = {
    ("transfer", "proxy", "http"): ("http_proxy", "HTTP_PROXY"),
    ("transfer", "proxy", "https"): ("https_proxy", "HTTPS_PROXY"),
    ("transfer", "dockerConfig"): ("REGISTRY_AUTH_FILE",),
    ("telemetry", "endpoint"): ("OTEL_EXPORTER_OTLP_ENDPOINT",),
}
"""The variables that say what no file says; of the last one, what wins over it."""
_HOSTS: Final = ("transfer", "hosts")
WINS: Final = ("telemetry", "endpoint")


class Value(NamedTuple):
    """One value in force, and where it comes from."""

    path: Path
    value: Any
    origin: str


def show_config(node: Node, output: str, *, origin: bool) -> int:
    """Print what is in force; 0."""
    loaded = load(config_file(node.config_file))
    values = list(in_force(node, loaded))
    tell_if_behind(node, loaded.config)
    if not origin:
        say_one(_nested(values), output or "yaml")
    elif output:
        say_items(({"key": shown(one.path), "value": one.value, "origin": one.origin} for one in values), output)
    else:
        rows = [(shown(one.path), _cell(one.value), one.origin) for one in values]
        say(printable(table(("KEY", "VALUE", "ORIGIN"), rows)))
    return 0


def tell_if_behind(node: Node, config: Config) -> None:
    """Warn when the agent works by another configuration than the files say by now."""
    store = node.store()
    ours = next(iter(store.list(Kind.NODE)), None) if store is not None and has_agent(node) else None
    if ours is None or "config" not in ours.spec:
        return
    before, after = dict(flat(ours.spec["config"])), dict(flat(without_passwords(plain(config))))
    staged = f"{node.paths.state}/"  # what an engine has put before a file of version 1
    hosts = before.get(_HOSTS)
    if isinstance(hosts, list):
        before[_HOSTS] = [one for one in hosts if not one.startswith(staged)]
    differ = sorted(shown(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    if differ:
        warn(f"the agent does not work by this yet: {', '.join(differ)} (see its conditions: reconciler status)")


def in_force(node: Node, loaded: Loaded) -> Iterator[Value]:
    """Every value: as the options say, the environment, the files, or by default."""
    proxied = bool(loaded.config.transfer.proxy.http or loaded.config.transfer.proxy.https)
    for path, value in flat(plain(loaded.config)):
        found = Value(path, value, loaded.origin(path))
        if path in OPTIONS:
            found = _folder(node, found)
        elif path in ENVIRONMENT and (value is None or path == WINS) and not (proxied and "proxy" in path):
            found = _surroundings(found)
        yield found._replace(value=without_passwords(found.value))


def _folder(node: Node, found: Value) -> Value:
    """`root` and `state` as they are used."""
    (name,) = found.path
    source = click.get_current_context().find_root().get_parameter_source(name)
    words = {ParameterSource.COMMANDLINE: OPTIONS[found.path][0], ParameterSource.ENVIRONMENT: OPTIONS[found.path][1]}
    given = words.get(source) if source is not None and getattr(node, name) else None
    return Value(found.path, str(getattr(node.paths, name)), given or found.origin)


def _surroundings(found: Value) -> Value:
    name = next((name for name in ENVIRONMENT[found.path] if os.environ.get(name)), None)
    return found if name is None else Value(found.path, os.environ[name], f"environment: {name}")


def _nested(values: list[Value]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for path, value, _ in values:
        into = whole
        for part in path[:-1]:
            into = into.setdefault(part, {})
        into[path[-1]] = value
    return whole


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None or value == {} else str(value)


def validate_config(node: Node, given: str | None) -> int:
    """Tell every fault; 0 or 1."""
    file = config_file(given or node.config_file)
    try:
        loaded = load(file)
    except BadConfig as error:
        for fault in error.faults:
            place = f"{fault.file}:{fault.line}:{fault.column}" if fault.line else fault.file
            what = f"{fault.path}: {fault.message}" if fault.path else fault.message
            complain_in_words(f"{place}: {printable(what)}", [fault.advice])
        return 1
    if not loaded.files:
        say("There is no configuration: everything is as by default.")
    for path in loaded.files:
        say(f"{path}: valid")
    if loaded.steps:
        say("Brought from version 1 to version 2, in memory; write it: reconciler config migrate FILE --write")
        say(printable("\n".join(loaded.steps)))
    return 0
