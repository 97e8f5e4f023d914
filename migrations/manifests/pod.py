"""Kubernetes' Pods, and what stands beside them in a file, as manifests.

Rules of this file: a Pod is a Sandbox with its Containers, the only container called as the Pod is. Secrets and
ConfigMaps are Secrets, a claim is a Volume; of what makes Pods (a Deployment and its like) the Pod in it counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from core.errors import Invalid
from core.values import dataclass
from migrations.config.work import Outcome
from migrations.manifests.given import Account, Given, Rule, follow
from migrations.manifests.making import Made, Result, Settings, annotations_of, is_data_key, words
from migrations.manifests.pod_container import Held
from migrations.manifests.pod_spec import PodOf, convert_pod

_TEMPLATES: Final = ("Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "ReplicationController", "Job")
_BY_CLUSTER: Final = "says what a cluster saw: nothing to do"
_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_NO_KIND: Final = "there is no such kind here: {0}"
_INSTEAD: Final[Mapping[str, str]] = {
    "Service": "a container's ports are mapped by its sandbox (network.ports)",
    "Ingress": "run a proxy as a container of its own",
    "Namespace": "the names of a node are one space",
    "CronJob": "have a timer apply it, or run it in a container that waits",
}
_METADATA: Final = (
    *("creationTimestamp", "generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid"),
    *("deletionTimestamp", "deletionGracePeriodSeconds", "finalizers"),
)


def convert(documents: Sequence[Given], settings: Settings) -> Result:
    """Manifests of the documents of one file. Raises `BadDocument`, and `Invalid` where there is no Pod."""
    return _File(Account(documents), Made(), settings).convert()


@dataclass(slots=True)
class _File:
    account: Account
    made: Made
    settings: Settings

    def convert(self) -> Result:
        """All of it, what others name first."""
        objects = [one for root in self.account.roots for one in self._objects(root)]
        if not any(self._kind(one) in ("Pod", *_TEMPLATES) for one in objects):
            raise Invalid(
                "there is no Pod in it", advice="Give a file with a document of kind: Pod (or Deployment and its like)."
            )
        held = self._held(objects)
        for one in objects:
            self._beside(one, held)
        for one in objects:
            if self._kind(one) in ("Pod", *_TEMPLATES):
                self._pod(one, held)
        return Result(self.made.documents, self.account.entries(), self.account.told)

    def _objects(self, root: Given) -> list[Given]:
        """The object, or those in a list of such."""
        if not self._kind(root).endswith("List"):
            return [root]
        follow(self.account, root, {"metadata": (Outcome.INERT, _BY_CLUSTER)})
        self._header(root)
        items = root.get("items")
        return items.listing() if items is not None else []

    def _kind(self, given: Given) -> str:
        kind = given.get("kind")
        if kind is None:
            raise given.bad("has no kind", "Write kind: Pod.")
        return kind.string()

    def _header(self, given: Given) -> None:
        for key in ("apiVersion", "kind"):
            self.account.translated(given.get(key), "", "manifests here have a version and kinds of their own")

    def _named(self, given: Given) -> str:
        metadata = given.get("metadata")
        name = metadata.get("name") or metadata.get("generateName") if metadata is not None else None
        if name is None:
            raise given.bad("has no name", "Write metadata: {name: NAME}.")
        return name.string()

    def _held(self, objects: Sequence[Given]) -> Held:
        """Names and keys of Secrets, ConfigMaps and claims; Secrets keep theirs."""
        names: dict[tuple[str, str], str] = {}
        keys: dict[tuple[str, str], tuple[str, ...]] = {}
        for kind, ours in (("Secret", "Secret"), ("ConfigMap", "Secret"), ("PersistentVolumeClaim", "Volume")):
            for one in objects:
                if self._kind(one) != kind:
                    continue
                name = self._named(one)
                if (kind, name) in names:
                    raise one.bad(f"{kind} {name} is there twice", "Keep one of the two.")
                names[kind, name] = self.made.name(ours, name)
                found = [key for part in ("data", "binaryData", "stringData") for key in _fields(one.get(part))]
                keys[kind, name] = tuple(dict.fromkeys(key for key in found if is_data_key(key)))
        return Held(names, keys)

    # ------------------------------------------------------------------------------------------------------- beside

    def _beside(self, one: Given, held: Held) -> None:
        """What is no Pod."""
        kind = self._kind(one)
        if kind in ("Pod", *_TEMPLATES):
            return
        self._header(one)
        if kind not in ("Secret", "ConfigMap", "PersistentVolumeClaim"):
            self.account.dropped(one, _NO_KIND.format(_INSTEAD.get(kind, "it is left out")))
            return
        name = held.names[kind, self._named(one)]
        ours = "volume" if kind == "PersistentVolumeClaim" else "secret"
        metadata = self._metadata(one.get("metadata"), f"{ours}/{name}")
        self.account.inert(one.get("status"), _BY_CLUSTER)
        if ours == "volume":
            self.account.inert(one.get("spec"), "a folder of this node: it has the size of its disk")
            self.made.add("Volume", name, {"retain": True}, **metadata)
        else:
            self._secret(one, kind, name, metadata)

    def _secret(self, one: Given, kind: str, name: str, metadata: Mapping[str, Any]) -> None:
        parts = {"data": "data", "stringData": "stringData"} if kind == "Secret" else {}
        parts = parts or {"data": "stringData", "binaryData": "data"}
        spec: dict[str, dict[str, str]] = {}
        for theirs, ours in parts.items():
            for key, value in _fields(one.get(theirs)).items():
                if not is_data_key(key):
                    self.account.dropped(value, "no key of a Secret can be called so")
                    continue
                spec.get("data", {}).pop(key, None)  # stringData wins, as in a cluster
                spec.setdefault(ours, {})[key] = "" if value.null else value.string()
                self.account.moved(value, f"secret/{name} {ours}")
        rules: dict[str, Rule] = {
            "type": (Outcome.INERT, "a Secret here is of no type: its keys say what it is for"),
            "immutable": (Outcome.INERT, "it changes when its manifest does"),
        }
        follow(self.account, one, rules)
        self.made.add("Secret", name, spec, **metadata)

    # --------------------------------------------------------------------------------------------------------- pods

    def _metadata(self, given: Given | None, to: str) -> dict[str, Mapping[str, str]]:
        """Labels and annotations of an object."""
        if given is None:
            return {}
        labels, more = words(self.account, given.get("labels"), to)
        self.account.inert(given.get("annotations", _APPLIED), _BY_CLUSTER)
        annotations = annotations_of(self.account, given.get("annotations"), to)
        annotations.pop(_APPLIED, None)
        rules: dict[str, Rule] = dict.fromkeys(_METADATA, (Outcome.INERT, _BY_CLUSTER))
        rules["name"] = lambda one: self.account.moved(one, f"{to} metadata.name")
        rules["generateName"] = lambda one: self.account.translated(one, f"{to} metadata.name", "the name itself")
        rules["namespace"] = self._namespace
        follow(self.account, given, rules)
        return {"labels": labels, "annotations": annotations | more}

    def _namespace(self, given: Given) -> None:
        if given.string() == "default":
            self.account.default(given)
        else:
            self.account.dropped(given, "the names of a node are one space: put it into the names where two are alike")

    def _pod(self, one: Given, held: Held) -> None:
        self._header(one)
        kind = self._kind(one)
        name = self.made.name("Sandbox", self._named(one))
        metadata = self._metadata(one.get("metadata"), f"sandbox/{name}")
        self.account.inert(one.get("status"), _BY_CLUSTER)
        spec = one.get("spec")
        if kind != "Pod" and spec is not None:
            metadata = self._template(spec, name, metadata)
            spec = spec.get("template", "spec")
        if spec is None:
            raise one.bad("has no spec", "Write spec: {containers: …}.")
        convert_pod(PodOf(self.account, self.made, self.settings, held, name, metadata), spec)

    def _template(self, spec: Given, name: str, metadata: dict[str, Any]) -> dict[str, Any]:
        """What stands around the Pod in what makes Pods."""
        inner = self._metadata(spec.get("template", "metadata"), f"sandbox/{name}")
        rules: dict[str, Rule] = {
            "replicas": self._replicas,
            "completions": self._replicas,
            "parallelism": self._replicas,
            "selector": (Outcome.INERT, "there is one Pod, which this is"),
            "serviceName": (Outcome.INERT, "there are no Services here"),
            "strategy": (Outcome.INERT, "the old one is stopped before the new one starts"),
            "updateStrategy": (Outcome.INERT, "the old one is stopped before the new one starts"),
            "revisionHistoryLimit": (Outcome.INERT, "gc.keepRevisions of the configuration says it"),
            "minReadySeconds": (Outcome.INERT, "ready is what its probes say"),
            "podManagementPolicy": (Outcome.INERT, "there is one Pod"),
            "progressDeadlineSeconds": (Outcome.INERT, "apply --timeout says how long to wait"),
            "volumeClaimTemplates": (Outcome.DROPPED, "write a Volume, and mount it"),
            "backoffLimit": (Outcome.DROPPED, "tries are not counted: restart.maxDelay caps the back-off"),
            "activeDeadlineSeconds": (Outcome.DROPPED, "there is no deadline: stop it by hand"),
            "ttlSecondsAfterFinished": (Outcome.DROPPED, "it stays until it is deleted"),
        }
        follow(self.account, spec, rules)
        return {key: {**metadata.get(key, {}), **inner.get(key, {})} for key in ("labels", "annotations")}

    def _replicas(self, given: Given) -> None:
        if given.number() == 1:
            self.account.default(given)
        else:
            self.account.dropped(given, "one of them runs on a node: apply it on several nodes, or write it twice")


def _fields(given: Given | None) -> dict[str, Given]:
    return {} if given is None else given.mapping()
