"""What a changed configuration means for an engine that runs: what it takes up, and what waits for a restart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.values import dataclass
from reconciler.model.config import Config
from reconciler.model.problems import shown
from reconciler.model.settings import Path, after_restart, flat, plain


@dataclass(frozen=True, slots=True)
class Change:
    """`in_force`: the new configuration, but for what waits. `taken_up`, `waiting`: the keys that differ, as words."""

    in_force: Config
    taken_up: tuple[str, ...]
    waiting: tuple[str, ...]


def compare(running: Config, new: Config) -> Change:
    """What of `new` an engine that works by `running` takes up."""
    before, after = plain(running), plain(new)
    differ = sorted(_different(dict(flat(before)), dict(flat(after))))
    waiting = [path for path in differ if after_restart(path)]
    for path in waiting:
        _set(after, path, _get(before, path))
    taken_up = tuple(shown(path) for path in differ if path not in waiting)
    return Change(Config.model_validate(after), taken_up, tuple(map(shown, waiting)))


def _different(before: Mapping[Path, Any], after: Mapping[Path, Any]) -> Iterator[Path]:
    """The paths of values that are not the same in both; of an empty mapping that was filled, what fills it."""
    for path in before.keys() | after.keys():
        filled = {} in (before.get(path), after.get(path)) and (path not in before or path not in after)
        if not filled and before.get(path) != after.get(path):
            yield path


def _get(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


def _set(value: Any, path: Path, one: Any) -> None:
    for part in path[:-1]:
        value = value[part]
    value[path[-1]] = one


def told(change: Change) -> str:
    """A sentence for a person."""
    parts = [f"in force: {', '.join(change.taken_up)}"] if change.taken_up else []
    parts += [f"after a restart of the agent: {', '.join(change.waiting)}"] if change.waiting else []
    return "; ".join(parts) or "nothing is different"
