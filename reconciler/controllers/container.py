"""Containers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from core.clock import timestamp
from core.runtime.ports import TaskPhase
from reconciler.decide.attempts import STOPPED_BY_HAND, Memory
from reconciler.decide.container import health_of, plan_container
from reconciler.decide.facts import ContainerFacts, Dependency, Facts, ImageSeen, Now, SandboxView, TaskSeen
from reconciler.decide.health import Health, ProbeSeen, asked
from reconciler.decide.hooks import awaits_start
from reconciler.decide.others import image_wish, sandbox_hash
from reconciler.decide.overrides import RESTART, STOP, stop_of
from reconciler.decide.references import image_key, sandbox_key, secrets_of, volumes_of
from reconciler.decide.summary import Detail, condition, is_true, stalled
from reconciler.decide.switching import has_started, restarts
from reconciler.engine.observe import Eyes
from reconciler.model.actions import Plan
from reconciler.model.identity import Key, Kind
from reconciler.model.kinds.container import ContainerSpec
from reconciler.model.objects import Object
from reconciler.model.outcome import Fault
from reconciler.store.functions import used_attempts


class ContainerController:
    """Attempts of a container's spec, one at a time."""

    kind = Kind.CONTAINER
    creates = (Kind.IMAGE, Kind.SANDBOX)
    reads = (Kind.IMAGE, Kind.SANDBOX, Kind.VOLUME, Kind.SECRET)

    def __init__(self, eyes: Eyes, owned_by: Callable[[Key], frozenset[Key]]) -> None:
        self._eyes = eyes
        self._owned_by = owned_by
        self._specs: dict[Key, tuple[str, int, ContainerSpec]] = {}

    def spec(self, obj: Object) -> ContainerSpec:
        """The spec as a model; kept until the object's generation moves."""
        known = self._specs.get(obj.key)
        if known is not None and known[:2] == (obj.uid, obj.generation):
            return known[2]
        spec = ContainerSpec.model_validate(obj.spec)
        self._specs[obj.key] = (obj.uid, obj.generation, spec)
        return spec

    def facts(self, obj: Object, fault: Fault | None) -> ContainerFacts:
        """Its image, sandbox, volumes, secrets, dependencies and attempts."""
        spec = obj.spec
        tasks = self._eyes.tasks(obj.name, describe=not obj.record)
        return ContainerFacts(
            obj=obj,
            boot=self._eyes.node.boot,
            image=self._image(image_key(spec)),
            sandbox=self._sandbox(sandbox_key(obj.name, spec)),
            volumes={name: self._ready(Key(Kind.VOLUME, name)) for name in volumes_of(spec)},
            secrets={name: self._eyes.secret_hash(name) for name in secrets_of(spec)},
            dependencies=tuple(self._dependencies(spec)),
            tasks=tasks,
            stopping=self._eyes.stopping(tasks),
            hooks=self._eyes.hooked(tasks),
            probes=self._probes(obj, tasks),
            owned=self._owned_by(obj.key),
            default_runtime=self._eyes.node.default_runtime,
            used=0 if obj.record else used_attempts(self._eyes.store, obj.name),
            fault=fault,
            has_logs=obj.deleted is not None and self._eyes.has_logs(obj.name),
        )

    def _probes(self, obj: Object, tasks: tuple[TaskSeen, ...]) -> Mapping[str, ProbeSeen]:
        """The answers about the current attempt while it runs, and is not being ended."""
        if "probes" not in obj.spec:
            return self._eyes.probes(obj.key, "", {})
        memory, probes = Memory.of(obj.record), self.spec(obj).probes
        id = memory.current.id(obj.name) if memory.current is not None else ""
        runs = any(task.id == id and task.phase is TaskPhase.RUNNING for task in tasks)
        if not runs or obj.deleted is not None or memory.condemned():
            return self._eyes.probes(obj.key, "", {})
        return self._eyes.probes(obj.key, id, asked(probes, started=has_started({}, memory)))

    def _ready(self, key: Key) -> bool:
        obj = self._eyes.store.get(key)
        return obj is not None and obj.deleted is None and is_true(obj.status, "Ready")

    def _image(self, key: Key) -> ImageSeen | None:
        obj = self._eyes.store.get(key)
        if obj is None:
            return None
        wish = image_wish(obj.spec, self._eyes.node.platform, self._eyes.archive(obj.spec), obj.record)
        ready = bool(obj.record.get("chain")) and obj.record.get("wish") == wish and obj.deleted is None
        record = obj.record if ready else {}
        return ImageSeen(key, ready, record, obj.owners, _trouble(obj), stalled(obj), obj.deleted is not None)

    def _sandbox(self, key: Key) -> SandboxView | None:
        obj = self._eyes.store.get(key)
        if obj is None:
            return None
        ready = bool(obj.record.get("made")) and obj.record.get("boot") == self._eyes.node.boot
        ready = ready and obj.record.get("hash") == sandbox_hash(obj.spec) and obj.deleted is None
        id = str(obj.record.get("id", ""))
        return SandboxView(key, ready, id, obj.spec, obj.owners, _trouble(obj), stalled(obj), obj.deleted is not None)

    def _dependencies(self, spec: Mapping[str, Any]) -> Iterator[Dependency]:
        for wanted in spec.get("dependsOn", ()):
            key = Key(Kind.CONTAINER, wanted["container"])
            name = wanted.get("condition", "Started")
            obj = self._eyes.store.get(key)
            if obj is None:
                yield Dependency(key, name, False, "it is not there")
            else:
                yield Dependency(key, name, _met(name, obj), _trouble(obj))

    def plan(self, facts: Facts, now: Now) -> Plan:
        """What to do now."""
        assert isinstance(facts, ContainerFacts)
        return plan_container(facts, self.spec(facts.obj), now)

    def detail(self, facts: Facts, plan: Plan) -> Detail:
        """State, pid, exit, restarts."""
        assert isinstance(facts, ContainerFacts)
        return container_detail(facts, self.spec(facts.obj))


def _trouble(obj: Object) -> str:
    if obj.deleted is not None:
        return "it is being deleted"
    ready = condition(obj.status, "Ready")
    return str(ready["message"]) if ready is not None and ready["status"] != "True" else ""


def _met(name: str, obj: Object) -> bool:
    state = obj.status.get("state")
    if name == "Succeeded":
        return state == "Exited" and obj.status.get("exitCode") == 0
    started = bool(obj.status.get("startedAt"))
    return started if name == "Started" else is_true(obj.status, "Ready")


def container_detail(facts: ContainerFacts, spec: ContainerSpec) -> Detail:
    """What a container's status says beside its conditions. Pure."""
    memory = Memory.of(facts.obj.record)
    task = _shown(facts, memory)
    state, ready, reason, message = _state(facts, memory, task, spec)
    fields: dict[str, Any] = {"state": state, "reason": reason, "restarts": memory.restarts}
    current = memory.current
    if current is not None:
        fields["image"] = {"digest": current.image.get("digest", "")}
        fields["snapshot"] = task.id if task is not None else current.id(facts.obj.name)
        fields["sandbox"] = facts.sandbox.key.name if facts.sandbox is not None else ""
        if task is not None and task.phase not in _NOT_STARTED:
            fields["startedAt"] = timestamp(current.at)
    if task is not None and task.pid is not None and state == "Running":
        fields["pid"] = task.pid
    if asked := {name: facts.obj.local[name] for name in (STOP, RESTART) if name in facts.obj.local}:
        fields["override"] = asked
    if memory.ended is not None:
        fields["exitCode"] = memory.ended.code
        fields["finishedAt"] = timestamp(memory.ended.at)
        fields["lastExit"] = {"attempt": memory.ended.attempt, "reason": memory.ended.reason, "oom": memory.ended.oom}
    return Detail(ready, reason, message, fields)


_NOT_STARTED = (TaskPhase.ABSENT, TaskPhase.PREPARED, TaskPhase.HALF_MADE, TaskPhase.CREATED)


def _shown(facts: ContainerFacts, memory: Memory) -> TaskSeen | None:
    """The task that people mean: the current one, or the one before while that has not begun."""
    by_attempt = {task.attempt: task for task in facts.tasks}
    for made in (memory.current, memory.previous):
        task = by_attempt.get(made.attempt) if made is not None else None
        if task is not None and task.phase not in _NOT_STARTED:
            return task
    return by_attempt.get(memory.current.attempt) if memory.current is not None else None


def _state(
    facts: ContainerFacts, memory: Memory, task: TaskSeen | None, spec: ContainerSpec
) -> tuple[str, bool, str, str]:
    if facts.obj.deleted is not None:
        return ("Stopped", False, "Deleting", "it is being removed")
    if task is not None and task.phase in (TaskPhase.RUNNING, TaskPhase.PAUSED):
        word = "Running" if task.phase is TaskPhase.RUNNING else "Paused"
        is_current = memory.current is not None and memory.current.attempt == task.attempt
        if is_current and awaits_start(spec, memory):
            return (word, False, "PostStart", memory.condemned() or "its postStart hook has not ended yet")
        state = health_of(facts, spec, memory) if is_current else Health(True, True)
        return (word, state.ready, word if state.ready else "NotReady", state.trouble or f"pid {task.pid}")
    if task is not None and task.phase is TaskPhase.LOST and task.alive:
        return ("Running", False, "MonitorLost", f"pid {task.pid} runs on unwatched, and is being stopped")
    if (stop := stop_of(facts.obj.local)) is not None:
        return ("Stopped", False, STOPPED_BY_HAND, str(stop))
    ended = memory.current_ended()
    if ended is not None and not restarts(spec.restart.policy, ended):
        code = "unknown code" if ended.code is None else f"code {ended.code}"
        reason = "NodeRebooted" if ended.reason == "NodeRebooted" else "Failed" if ended.failed else "Completed"
        return ("Exited", False, reason, f"ended with {code} ({ended.reason})")
    if ended is not None:
        return ("Waiting", False, "BackOff", f"ended with {ended.reason}; to be started again")
    return ("Waiting", False, "NotStarted", "not started yet")
