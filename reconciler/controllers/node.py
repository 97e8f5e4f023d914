"""The node itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from reconciler.decide.facts import Disk, Facts, NodeFacts, Now
from reconciler.decide.node import node_detail
from reconciler.decide.others import plan_plain
from reconciler.decide.summary import Detail
from reconciler.engine.standing import Standing
from reconciler.model.actions import Plan
from reconciler.model.identity import Kind
from reconciler.model.objects import Object
from reconciler.model.outcome import Fault


class NodeController:
    """Nothing is done for it. `describe` gives its status fields, `disk` looks at root, `notice` tells of a loss,
    `standing` of the configuration.
    """

    kind = Kind.NODE
    creates: tuple[Kind, ...] = ()
    reads: tuple[Kind, ...] = ()

    def __init__(
        self,
        describe: Callable[[], Mapping[str, Any]],
        disk: Callable[[], Disk],
        notice: Callable[[], str],
        standing: Standing,
    ) -> None:
        self._describe = describe
        self._disk = disk
        self._notice = notice
        self._standing = standing

    def facts(self, obj: Object, fault: Fault | None) -> NodeFacts:
        """What it is now."""
        standing = self._standing
        detail = {**self._describe(), "configuration": standing.to_json()}
        return NodeFacts(obj, self._disk(), self._notice(), standing.problem, standing.waiting, fault, detail)

    def plan(self, facts: Facts, now: Now) -> Plan:
        """Nothing."""
        return plan_plain(facts.obj)

    def detail(self, facts: Facts, plan: Plan) -> Detail:
        """Fields and conditions."""
        assert isinstance(facts, NodeFacts)
        return node_detail(facts)
