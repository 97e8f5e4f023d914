"""Compose files as manifests.

Rules of this file: services that share a network of compose share one Sandbox here, where they reach each other at
127.0.0.1; the others have one of their own. Variables (`$NAME`, `${NAME:-…}`) are put in first, as compose does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import Any, Final

from core.errors import Invalid
from core.values import dataclass
from migrations.config.work import Outcome
from migrations.manifests.compose_files import Files
from migrations.manifests.compose_sandbox import groups, sandbox
from migrations.manifests.compose_service import Service
from migrations.manifests.compose_stage import Names, Stage
from migrations.manifests.compose_text import put_in
from migrations.manifests.given import Account, Given, Rule, follow
from migrations.manifests.making import Made, Result, Settings, name_for, words

_NO_IMAGE: Final = "has no image: build it, push or import it, and name it under image"
_LOCALHOST: Final = (
    "{0} share sandbox/{1}: they reach each other at 127.0.0.1, not by name; "
    "change the names of hosts in what they are told"
)
_BESIDE: Final = "keep the manifests in {0}: they name files beside them"
_COPY: Final = "volumes begin empty here: copy what Docker keeps of {0} into them"


def convert(documents: Sequence[Given], settings: Settings) -> Result:
    """Manifests of a compose file. Raises `BadDocument`, and `Invalid` where there are no services."""
    if len(documents) != 1:
        raise documents[1].bad("is a second document", "A compose file is one: convert each by itself.")
    account = Account(documents)
    put_in(account, documents[0], settings.variables)
    return _Project(account, Made(), settings, documents[0]).convert()


@dataclass(slots=True)
class _Project:
    account: Account
    made: Made
    settings: Settings
    root: Given
    volumes: dict[str, str] = field(default_factory=dict)

    def convert(self) -> Result:
        """All of it."""
        services = self._services()
        name = self._name()
        files = Files(self.account, self.made, self.settings, self.root)
        self._volumes(services)
        follow(self.account, self.root, self._rules())
        containers = {key: self.made.name("Container", key) for key in services}
        members = groups(services)
        sandboxes: dict[str, str] = {}
        for keys in members:
            wanted = name if len(keys) > 1 or len(services) == 1 else keys[0]
            sandboxes |= dict.fromkeys(keys, self.made.name("Sandbox", wanted))
        stage = Stage(self.account, self.made, self.settings, files, Names(self.volumes, containers, sandboxes))
        specs = {key: Service(stage, key, given).spec() for key, given in services.items()}
        for keys in members:
            sandbox(stage, {key: services[key] for key in keys})
            if len(keys) > 1:
                self.account.told.append(_LOCALHOST.format(", ".join(keys), sandboxes[keys[0]]))
        for key, given in services.items():
            metadata = self._metadata(given, f"container/{containers[key]}")
            self.made.add("Container", containers[key], specs[key], **metadata)
        for kind in ("configs", "secrets"):
            self.account.inert(self.root.get(kind), "no service names it")
        if any("file" in mount for spec in specs.values() for mount in spec["mounts"]):
            self.account.told.append(_BESIDE.format(self.settings.folder))
        if self.volumes:
            self.account.told.append(_COPY.format(", ".join(self.volumes)))
        return Result(self.made.documents, self.account.entries(), self.account.told)

    def _services(self) -> dict[str, Given]:
        """Those that have an image; the others are accounted for."""
        given = self.root.get("services")
        found: dict[str, Given] = {}
        for key, service in (given.mapping() if given is not None else {}).items():
            if service.get("image") is None:
                self.account.dropped(service, _NO_IMAGE)
            else:
                found[key] = service
        if not found:
            raise Invalid(
                "there is no service with an image in it",
                advice="Give a compose file with services; build what has only build, and name its image.",
            )
        return found

    def _name(self) -> str:
        given = self.root.get("name")
        if given is None:
            return name_for(self.settings.folder.rstrip("/").rsplit("/", 1)[-1] or "compose")
        self.account.translated(given, "", "the name of what is shared")
        return name_for(given.string())

    def _rules(self) -> Mapping[str, Rule]:
        extensions = {
            key: (Outcome.INERT, "is for other programs, or was put where it is named")
            for key in self.root.mapping()
            if key.startswith("x-")
        }
        return {
            "version": (Outcome.INERT, "says nothing any more"),
            "networks": self._networks,
            "include": (Outcome.DROPPED, "convert those files too, or give what docker compose config prints"),
            **extensions,
        }

    def _networks(self, given: Given) -> None:
        for one in given.mapping().values():
            rules: dict[str, Rule] = {
                "external": (Outcome.DROPPED, "what is outside is reached through ports"),
                "internal": (Outcome.DROPPED, "write network: {mode: none} where nothing outside is to be reached"),
                "driver": self._driver,
                "ipam": (Outcome.DROPPED, "the network `default` finds a free range; write a CNI list for another"),
            }
            if not one.null:
                follow(self.account, one, rules)
                self.account.dropped(one, "write a CNI list (network.lists), and name it in the sandbox")
            self.account.translated(one, "", "services that share it share a sandbox")

    def _driver(self, given: Given) -> None:
        if given.string() == "bridge":
            self.account.default(given)
        else:
            self.account.dropped(given, "write a CNI list (network.lists), and name it in the sandbox")

    def _volumes(self, services: Mapping[str, Given]) -> None:
        """Named volumes; those that only a service names are made too."""
        given = self.root.get("volumes")
        for key, one in (given.mapping() if given is not None else {}).items():
            named = one.get("name")
            name = self.made.name("Volume", named.string() if named is not None else key)
            self.volumes[key] = name
            where = f"volume/{name}"
            labels, annotations = words(self.account, one.get("labels"), where)
            rules: dict[str, Rule] = {
                "name": partial(self._called, where),
                "external": (Outcome.INERT, "it is a folder of this node here, and stays when the object goes"),
                "driver": self._volume_driver,
                "driver_opts": (Outcome.DROPPED, "mount it on the node, and that folder into the container (bind)"),
            }
            if not one.null:
                follow(self.account, one, rules)
            if one.empty:
                self.account.moved(one, where)
            self.made.add("Volume", name, {"retain": True}, labels=labels, annotations=annotations)

    def _called(self, where: str, given: Given) -> None:
        self.account.moved(given, f"{where} metadata.name")

    def _volume_driver(self, given: Given) -> None:
        if given.string() == "local":
            self.account.default(given)
        else:
            self.account.dropped(given, "mount it on the node, and that folder into the container (bind)")

    def _metadata(self, given: Given, to: str) -> dict[str, Any]:
        labels, annotations = words(self.account, given.get("labels"), to)
        more, others = words(self.account, given.get("annotations"), to)
        return {"labels": labels, "annotations": annotations | more | others}
