"""What a container needs around it: its image, sandbox, volumes, secrets and those it depends on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.transfer import reference
from reconciler.decide.attempts import IN_PLACE, Memory
from reconciler.decide.facts import ContainerFacts, ImageSeen, SandboxView
from reconciler.decide.references import image_key, sandbox_key
from reconciler.model.actions import Action, Await, Disown, EnsureOwned
from reconciler.model.identity import FINALIZERS, Key, Kind
from reconciler.model.kinds.texts import is_reference
from reconciler.model.modules import WASM
from reconciler.model.objects import Object


def owned_objects(owner: Key, raw: Mapping[str, Any], runtime: str = "runc") -> Iterator[Object]:
    """The objects that a container makes for itself: the Image of a reference, a private Sandbox.

    `runtime`: the sandbox's where the spec names none.
    """
    if is_reference(str(raw["image"])):
        image_spec = {"ref": str(reference.parse(str(raw["image"])))}
        if "sandbox" not in raw and raw.get("runtime", runtime) == WASM:
            image_spec["platform"] = "wasi/wasm"
        yield Object(image_key(raw), spec=image_spec, manager="engine", finalizers=frozenset({FINALIZERS[Kind.IMAGE]}))
    if "sandbox" not in raw:
        sandbox_spec = {name: raw[name] for name in ("runtime", "network") if name in raw}
        sandbox_spec.setdefault("runtime", runtime)
        if "hostname" not in sandbox_spec and sandbox_spec.get("network", {}).get("mode") != "host":
            sandbox_spec["hostname"] = owner.name.split(".")[0]
        yield Object(
            sandbox_key(owner.name, raw),
            spec=sandbox_spec,
            manager="engine",
            finalizers=frozenset({FINALIZERS[Kind.SANDBOX]}),
        )


def ensure_owned(facts: ContainerFacts) -> Iterator[Action]:
    """Make what the container owns, where it is not there as it should be. What is on its way out must go first."""
    key = facts.obj.key
    for wanted in owned_objects(key, facts.obj.spec, _default_runtime(facts)):
        seen: ImageSeen | SandboxView | None = facts.image if wanted.kind is Kind.IMAGE else facts.sandbox
        if seen is not None and seen.deleting:
            continue
        moved = isinstance(seen, SandboxView) and dict(seen.spec) != dict(wanted.spec)
        if seen is None or key not in seen.owners or moved:
            yield EnsureOwned(key, wanted)


def _default_runtime(facts: ContainerFacts) -> str:
    """The runtime of a private sandbox that names none: what runs keeps its own when the node's default changes, until
    the container is another one for another reason.
    """
    current, sandbox = Memory.of(facts.obj.record).current, facts.sandbox
    if current is None or sandbox is None or facts.obj.key not in sandbox.owners:
        return facts.default_runtime
    same = _replacing(current.spec) == _replacing(facts.obj.spec)
    return str(sandbox.spec.get("runtime", facts.default_runtime)) if same else facts.default_runtime


def _replacing(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in spec.items() if name not in IN_PLACE}


def disown_unneeded(facts: ContainerFacts) -> Iterator[Action]:
    """Let go of what an earlier spec owned, once nothing of it runs."""
    needed = {image_key(facts.obj.spec), sandbox_key(facts.obj.name, facts.obj.spec)}
    for key in sorted(facts.owned - needed):
        yield Disown(key, facts.obj.key)


def needs(facts: ContainerFacts) -> Iterator[Await]:
    """What must be there before another spec may be begun, and is not."""
    yield from _image(facts)
    yield from around(facts)
    if Memory.of(facts.obj.record).current is None:  # dependencies order first starts only
        for wanted in facts.dependencies:
            if not wanted.met:
                detail = f" ({wanted.detail})" if wanted.detail else ""
                yield Await("DependencyNotMet", f"{wanted.key} has not {wanted.condition.lower()} yet{detail}")


def around(facts: ContainerFacts) -> Iterator[Await]:
    """What must be there before the same spec may be begun again (its image is remembered), and is not."""
    yield from _sandbox(facts)
    for name, ready in sorted(facts.volumes.items()):
        if not ready:
            yield Await("VolumeNotReady", f"volume/{name} is not ready")
    for name, digest in sorted(facts.secrets.items()):
        if not digest:
            yield Await(
                "SecretMissing", f"secret/{name} is not there", stalled=True, hint=f"Apply a Secret named {name}."
            )


def _image(facts: ContainerFacts) -> Iterator[Await]:
    seen = facts.image
    if seen is None:
        name = image_key(facts.obj.spec)
        yield Await("ImageMissing", f"{name} is not there", stalled=True, hint=f"Apply an Image named {name.name}.")
    elif not seen.ready:
        trouble = seen.trouble or "not pulled and unpacked yet"
        yield Await("ImageNotReady", f"{seen.key}: {trouble}", stalled=seen.stalled)


def _sandbox(facts: ContainerFacts) -> Iterator[Await]:
    seen = facts.sandbox
    if seen is None:
        name = sandbox_key(facts.obj.name, facts.obj.spec)
        yield Await("SandboxMissing", f"{name} is not there", stalled=True, hint=f"Apply a Sandbox named {name.name}.")
    elif not seen.ready:
        yield Await("SandboxNotReady", f"{seen.key}: {seen.trouble or 'not made yet'}", stalled=seen.stalled)
