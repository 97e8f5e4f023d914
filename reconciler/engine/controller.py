"""What a controller is, and their registration: every kind has one writer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from reconciler.decide.facts import Facts, Now
from reconciler.decide.summary import Detail
from reconciler.model.actions import Plan
from reconciler.model.identity import Kind
from reconciler.model.objects import Object
from reconciler.model.outcome import Fault


class Controller(Protocol):
    """One kind's facts, plan and status. `facts` looks; `plan` and `detail` are pure functions of what was seen."""

    @property
    def kind(self) -> Kind:
        """The kind whose record and status it writes."""

    @property
    def creates(self) -> tuple[Kind, ...]:
        """The kinds of which it makes objects."""

    @property
    def reads(self) -> tuple[Kind, ...]:
        """The kinds whose objects its facts are taken from."""

    def facts(self, obj: Object, fault: Fault | None) -> Facts:
        """Observe the object and its surroundings."""

    def plan(self, facts: Facts, now: Now) -> Plan:
        """What to do now."""

    def detail(self, facts: Facts, plan: Plan) -> Detail:
        """Whether it is ready, and the kind's own status fields."""


class WriterConflict(ValueError):
    """Two controllers want to write the status of one kind: a fault of the program."""


def register(controllers: Iterable[Controller]) -> Mapping[Kind, Controller]:
    """The controllers by kind; raises `WriterConflict` when a kind would have two."""
    table: dict[Kind, Controller] = {}
    for controller in controllers:
        if controller.kind in table:
            raise WriterConflict(f"{controller.kind} has two controllers")
        table[controller.kind] = controller
    return table
