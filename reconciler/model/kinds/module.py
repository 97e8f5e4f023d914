"""What a Container may not ask for when it is a WASM module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from reconciler.model.kinds.sandbox import module_network_conflicts
from reconciler.model.problems import Problem, mapping_at, mappings_in

_SWITCHES: Final = ("tty", "stdin", "init")


def module_conflicts(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """Each thing that a module has not, at its place."""
    yield from module_network_conflicts(mapping_at(spec, "network"))
    for field in _SWITCHES:
        if spec.get(field) is True:
            yield Problem((field,), "is not for a module", "leave it out, or choose another runtime", at_key=True)
    for role in mapping_at(spec, "hooks"):
        yield Problem(("hooks", role), "is not for a module", "leave it out: no command runs in one", at_key=True)
    for role in mapping_at(spec, "probes"):
        advice = "leave it out: nothing in a module can be asked"
        yield Problem(("probes", role), "is not for a module", advice, at_key=True)
    if mapping_at(spec, "security").get("devices"):
        yield Problem(("security", "devices"), "is not for a module", "leave it out", at_key=True)
    for i, mount in mappings_in(spec, "mounts"):
        if "tmpfs" in mount:
            yield Problem(("mounts", i, "tmpfs"), "is not for a module", "mount a volume instead", at_key=True)
