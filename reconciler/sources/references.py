"""Whether what manifests refer to is there: in the same load, else in the store; and that containers wait in no circle.

Rules of this file: specs are those of valid manifests; the store is asked only by `known`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from reconciler.decide.references import auth_secret
from reconciler.model.identity import Key, Kind
from reconciler.model.kinds.texts import is_reference
from reconciler.model.problems import Path, mapping_at, mappings_in
from reconciler.sources.documents import Manifest
from reconciler.sources.faults import Fault
from reconciler.sources.loading import Loaded


class Reference(NamedTuple):
    """That a spec names an object, at `path` from the document's root."""

    path: Path
    key: Key


def references(kind: Kind, spec: Any) -> Iterator[Reference]:
    """All that a valid spec (JSON) refers to, in its order; an image given by reference is none."""
    if kind is Kind.IMAGE and "credentials" in spec:
        yield Reference(("spec", "credentials", "secret"), Key(Kind.SECRET, spec["credentials"]["secret"]))
    if kind is Kind.SOURCE and (login := auth_secret(spec)) is not None:
        yield Reference(("spec", "git", "auth", "secret"), Key(Kind.SECRET, login))
    if kind is not Kind.CONTAINER:
        return
    if not is_reference(spec["image"]):
        yield Reference(("spec", "image"), Key(Kind.IMAGE, spec["image"]))
    if "sandbox" in spec:
        yield Reference(("spec", "sandbox"), Key(Kind.SANDBOX, spec["sandbox"]))
    for i, env in mappings_in(spec, "env"):
        secret = mapping_at(mapping_at(env, "valueFrom"), "secret")
        if secret:
            yield Reference(("spec", "env", i, "valueFrom", "secret", "name"), Key(Kind.SECRET, secret["name"]))
    for i, mount in mappings_in(spec, "mounts"):
        for field, target in (("volume", Kind.VOLUME), ("secret", Kind.SECRET)):
            if field in mount:
                yield Reference(("spec", "mounts", i, field), Key(target, mount[field]))
    for i, dependency in mappings_in(spec, "dependsOn"):
        yield Reference(("spec", "dependsOn", i, "container"), Key(Kind.CONTAINER, dependency["container"]))


def check_references(loaded: Loaded, known: Callable[[Key], bool]) -> tuple[Fault, ...]:
    """A fault for each reference to nothing, each key that a Secret here has not, and each circle of dependencies."""
    faults: list[Fault] = []
    for manifest in loaded.manifests:
        for path, key in references(manifest.key.kind, manifest.spec):
            if key not in loaded.keys and not known(key):
                faults.append(manifest.fault(path, f"there is no {key}", _advice(key)))
    faults.extend(_missing_secret_keys(loaded))
    faults.extend(_circles(loaded.manifests))
    return tuple(faults)


def check_runtimes(loaded: Loaded, known: Collection[str]) -> tuple[Fault, ...]:
    """A fault for each `runtime` that is none of the node's; none while nobody knows what the node has."""
    path = ("spec", "runtime")
    advice = f"write one of {', '.join(sorted(known))}, or add it to runtimes in the configuration"
    return tuple(
        manifest.fault(path, f"this node has no runtime {name!r}", advice)
        for manifest in loaded.manifests
        if known and manifest.key.kind in (Kind.SANDBOX, Kind.CONTAINER)
        if (name := manifest.spec.get("runtime")) is not None and name not in known
    )


def check_privileged(loaded: Loaded) -> tuple[Fault, ...]:
    """A fault for each privileged container, for a node whose configuration allows none."""
    path = ("spec", "security", "privileged")
    advice = "leave it out, or set policy.allowPrivileged: true in the configuration"
    return tuple(
        manifest.fault(path, "this node allows no privileged containers", advice)
        for manifest in loaded.manifests
        if mapping_at(manifest.spec, "security").get("privileged") is True
    )


def _advice(key: Key) -> str:
    if key.kind is Kind.IMAGE:
        return f"add an Image of that name, or write an image reference, such as docker.io/library/{key.name}:latest"
    return f"add a {key.kind} of that name, or correct this one"


def _missing_secret_keys(loaded: Loaded) -> Iterator[Fault]:
    secrets = {
        m.key.name: {*mapping_at(m.spec, "data"), *mapping_at(m.spec, "stringData")}
        for m in loaded.manifests
        if m.key.kind is Kind.SECRET
    }
    for manifest in loaded.manifests:
        for i, env in mappings_in(manifest.spec, "env") if manifest.key.kind is Kind.CONTAINER else ():
            secret = mapping_at(mapping_at(env, "valueFrom"), "secret")
            keys = secrets.get(secret.get("name", ""))
            if keys is not None and secret["key"] not in keys:
                path = ("spec", "env", i, "valueFrom", "secret", "key")
                message = f"secret/{secret['name']} has no key {secret['key']}"
                yield manifest.fault(path, message, f"it has: {', '.join(sorted(keys)) or 'none'}")


def _circles(manifests: tuple[Manifest, ...]) -> Iterator[Fault]:
    """One fault a circle, at the dependency that closes it."""
    containers = {m.key.name: m for m in manifests if m.key.kind is Kind.CONTAINER}
    done: set[str] = set()
    for name in containers:
        trail: list[str] = []
        pending: list[tuple[str, Iterator[tuple[int, str]]]] = []
        _enter(name, containers, trail, pending, done)
        while pending:
            current, targets = pending[-1]
            step = next(targets, None)
            if step is None:
                pending.pop()
                trail.pop()
            elif step[1] in trail:
                yield _circle(containers, current, step[0], trail[trail.index(step[1]) :])
            else:
                _enter(step[1], containers, trail, pending, done)


def _enter(
    name: str,
    containers: dict[str, Manifest],
    trail: list[str],
    pending: list[tuple[str, Iterator[tuple[int, str]]]],
    done: set[str],
) -> None:
    if name in containers and name not in done:
        done.add(name)
        trail.append(name)
        targets = [(i, d["container"]) for i, d in mappings_in(containers[name].spec, "dependsOn")]
        pending.append((name, iter(targets)))


def _circle(containers: dict[str, Manifest], closing: str, place: int, members: list[str]) -> Fault:
    steps = [f"{name} ({containers[name].origin})" for name in (*members, members[0])]
    path = ("spec", "dependsOn", place, "container")
    return containers[closing].fault(path, f"a circle of dependencies: {' → '.join(steps)}", "remove one of them")
