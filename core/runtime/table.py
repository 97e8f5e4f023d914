"""Runtimes by name: which driver makes a sandbox and its tasks, and which one made those that are here.

Rules of this file: what a sandbox or task was made with is written in the `object.json` of its own folder when it is
made, and read from there: a configuration that has changed since loses nothing that runs. A runtime that no
configuration names any more still drives what it made. A name is only asked for something new.

A runtime is built when it is first used: most nodes use one of those that they could. Until then it is asked nothing,
for it has nothing: what it made is found by those folders, and what it keeps elsewhere its driver names (`Driver.has`).
"""

from __future__ import annotations

import json
import os
import platform
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Final

from core.errors import NotFound, Unsupported
from core.runtime.ports import Exit, Keeping, NewSandbox, NewTask, Sandboxer, SandboxState, Shim
from core.values import dataclass

MARK: Final = "runtime"
"""The entry of `object.json` that says by what it was made; left out by versions that knew runc only."""

_CALLED: Final = {"gvisor": "runsc"}
"""Programs that are called otherwise than the runtime."""


class UnknownRuntime(Unsupported):
    """No runtime of that name is here."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(
            f"this node has no runtime {name!r}; it has: {', '.join(known)}",
            advice="Correct `runtime`, or add it to `runtimes` in the configuration.",
        )


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """How a runtime is driven: `driver` is a name in the table of drivers, `path` its program ("": found by name)."""

    name: str
    driver: str = "oci"
    path: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def program(self) -> str:
        """The path, or the name to look for: shims are called after what they run, QEMU after the machine."""
        if self.driver == "vm":
            return self.path or f"qemu-system-{platform.machine()}"
        named = f"containerd-shim-{self.name}" if self.driver == "shim" else _CALLED.get(self.name, self.name)
        return self.path or named

    @property
    def is_gvisor(self) -> bool:
        """Whether its program is gVisor's, which is driven in a way of its own."""
        return self.driver == "oci" and Path(self.program).name == _CALLED["gvisor"]

    def to_json(self) -> dict[str, Any]:
        """A form for `object.json`."""
        return {"name": self.name, "driver": self.driver, "path": self.path, "options": dict(self.options)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> RuntimeSpec:
        """The inverse of `to_json`; None is what versions made that knew runc only."""
        return cls("runc") if data is None else cls(**data)


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime at work."""

    spec: RuntimeSpec
    sandboxer: Sandboxer
    shim: Shim

    @property
    def is_for_modules(self) -> bool:
        """Whether it runs WASM modules: what it runs is a file of the image, which sees nothing of the image itself."""
        return self.sandboxer.platform().startswith("wasi/")

    @property
    def is_for_machines(self) -> bool:
        """Whether its sandboxes are virtual machines."""
        return self.spec.driver == "vm"


def _nothing(spec: RuntimeSpec) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Driver:
    """How runtimes of one kind are made.

    `build` imports what they need. `has` tells, without that, whether one may have something on this node that no
    bundle, sandbox or exit file tells of: what a killed engine left for it to sweep or to remove. `keeps`: likewise of
    what is no task's own, and is collected.
    """

    build: Callable[[RuntimeSpec], Runtime]
    has: Callable[[RuntimeSpec], bool] = _nothing
    keeps: Callable[[RuntimeSpec], bool] = _nothing


_Key = tuple[str, str, str, tuple[tuple[str, str], ...]]


class RuntimeTable:
    """All runtimes of a node.

    `state`: the folder that may vanish at reboot, in which every driver keeps a task in `bundles/<id>` and a sandbox in
    `netns/<id>`, each with its `object.json`. `specs`: those that may be asked for; `drivers`: how each kind is built.
    """

    def __init__(self, state: Path, specs: tuple[RuntimeSpec, ...], drivers: Mapping[str, Driver]) -> None:
        self._state = state
        self._drivers = drivers
        self._built: dict[_Key, Runtime] = {}
        self._building = threading.Lock()
        self._made: dict[tuple[str, str], Runtime] = {}
        self.configure(specs)

    def configure(self, specs: tuple[RuntimeSpec, ...]) -> None:
        """Ask for these from now on; what was made goes on by what it was made with. Raises `Unsupported`."""
        for spec in specs:
            self._driver(spec)
        self._named = {spec.name: spec for spec in specs}

    @property
    def names(self) -> tuple[str, ...]:
        """What may be asked for."""
        return tuple(sorted(self._named))

    @property
    def specs(self) -> tuple[RuntimeSpec, ...]:
        """How each of them is driven, in the order of their names."""
        return tuple(self._named[name] for name in self.names)

    def named(self, name: str) -> Runtime:
        """The runtime for something new; raises `UnknownRuntime`."""
        if name not in self._named:
            raise UnknownRuntime(name, self.names)
        return self._driven(self._named[name])

    # By what was something made?

    def of_task(self, id: str) -> Runtime:
        """The runtime that made a task; raises `NotFound` when it has no bundle."""
        return self._maker("bundles", id, f"task {id}")

    def of_sandbox(self, id: str) -> Runtime:
        """The runtime that made a sandbox; raises `NotFound` when it is not there."""
        return self._maker("netns", id, f"sandbox {id}")

    def shim(self, id: str) -> Shim:
        """The driver of a task; of one without a bundle any driver will do: there is nothing but an exit to be seen."""
        return (self._find("bundles", id) or self._any).shim

    def sandboxer(self, id: str) -> Sandboxer:
        """The driver of a sandbox, there or not."""
        return (self._find("netns", id) or self._any).sandboxer

    @property
    def _any(self) -> Runtime:
        return next(iter(self._built.values()), None) or self._driven(next(iter(self._named.values())))

    def _maker(self, folder: str, id: str, what: str) -> Runtime:
        if (found := self._find(folder, id)) is None:
            raise NotFound(f"{what} is not there")
        return found

    def _find(self, folder: str, id: str) -> Runtime | None:
        key = (folder, id)
        if key not in self._made:
            try:
                described = json.loads((self._state / folder / id / "object.json").read_bytes())
                spec = RuntimeSpec.from_json(described.get(MARK))
            except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError, TypeError):
                return None
            self._made[key] = self._driven(spec)
        return self._made[key]

    def _driver(self, spec: RuntimeSpec) -> Driver:
        if spec.driver not in self._drivers:
            raise Unsupported(f"this version has no driver {spec.driver!r}, with which {spec.name} was made")
        return self._drivers[spec.driver]

    def _driven(self, spec: RuntimeSpec) -> Runtime:
        """The runtime of that very description, whether it may still be asked for or not."""
        driver, key = self._driver(spec), _key(spec)
        if (known := self._built.get(key)) is None:
            with self._building:  # workers may come to it at the same time
                if (known := self._built.get(key)) is None:
                    known = driver.build(spec)
                    self._built = {**self._built, key: known}  # others go through it meanwhile
        return known

    def _every(self) -> list[Runtime]:
        """All, built if need be."""
        for spec in self._named.values():
            self._driven(spec)
        return list(self._built.values())

    def _present(self) -> list[Runtime]:
        """Those that may have something here; at least one, which sees what all see."""
        for spec in self._named.values():
            if _key(spec) not in self._built and self._driver(spec).has(spec):
                self._driven(spec)
        return list(self._built.values()) or [self._any]

    def _concerned(self, folder: str, id: str) -> list[Runtime]:
        """Who made it; where it is there and nothing says any more who that was, all."""
        if (maker := self._find(folder, id)) is not None:
            return [maker]
        return self._every() if os.path.lexists(self._state / folder / id) else self._present()

    # Making and removing.

    def create_sandbox(self, runtime: Runtime, wanted: NewSandbox) -> SandboxState:
        """`Sandboxer.create`, marked with the runtime."""
        marked = replace(wanted, object={**wanted.object, MARK: runtime.spec.to_json()})
        return runtime.sandboxer.create(marked)

    def prepare(self, task: NewTask) -> None:
        """`Shim.prepare` by the runtime of the task's sandbox: as it is configured today, where it still is."""
        maker = self.of_sandbox(task.sandbox)
        today = self._named.get(maker.spec.name)
        runtime = self._driven(today) if today is not None and today.driver == maker.spec.driver else maker
        runtime.shim.prepare(replace(task, object={**task.object, MARK: runtime.spec.to_json()}))

    def delete(self, id: str) -> Exit | None:
        """`Shim.delete`; where nothing says any more who made the task, every driver removes what it finds."""
        exits = [one.shim.delete(id) for one in self._concerned("bundles", id)]
        self._made.pop(("bundles", id), None)
        return next((exit for exit in exits if exit is not None), None)

    def shutdown_sandbox(self, id: str) -> None:
        """`Sandboxer.shutdown`; likewise."""
        for sandboxer in self._sandboxers(self._concerned("netns", id)):
            sandboxer.shutdown(id)
        self._made.pop(("netns", id), None)

    # All of them.

    def tasks(self) -> Iterator[str]:
        """The ids of which anything is here."""
        yield from sorted({id for one in self._present() for id in one.shim.tasks()})

    def sandboxes(self) -> Iterator[str]:
        """The ids of sandboxes of which anything is here."""
        present = self._sandboxers(self._present())
        yield from sorted({id for sandboxer in present for id in sandboxer.sandboxes()})

    def sweep(self) -> None:
        """Remove what a killed engine left half-made; called before anything else."""
        present = self._present()
        for one in present:
            one.shim.sweep()
        for sandboxer in self._sandboxers(present):
            sandboxer.sweep()

    def collect(self, images: Collection[str], *, dry: bool) -> dict[str, int]:
        """Remove (`dry`: only tell) what drivers keep that no task uses and none of `images` needs: bytes by name."""
        for spec in self._named.values():
            if self._driver(spec).keeps(spec):
                self._driven(spec)
        keeping = [one.shim for one in self._built.values() if isinstance(one.shim, Keeping)]
        return dict(found for shim in keeping for found in shim.collect(images, dry=dry))

    def _sandboxers(self, runtimes: list[Runtime]) -> Iterator[Sandboxer]:
        """Each once: runtimes of one kind share theirs."""
        yield from {id(one.sandboxer): one.sandboxer for one in runtimes}.values()


def _key(spec: RuntimeSpec) -> _Key:
    return spec.name, spec.driver, spec.path, tuple(sorted(spec.options.items()))
