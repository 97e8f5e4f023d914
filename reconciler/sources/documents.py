"""From a document as read to a manifest: substituted, checked, with the files it names taken in.

Rules of this file: every fault at once, each where it stands; one place has one fault (what is empty is not also of
the wrong type). The spec is kept as it was written: no default is filled in.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Any, Final

from core.errors import Invalid
from core.values import dataclass
from reconciler.model.identity import API_VERSION, WRITTEN_BY_PEOPLE, Key, Kind, checked_name
from reconciler.model.kinds.checking import CARRIED, check_metadata, check_spec, unknown_key
from reconciler.model.kinds.later import LATER_KINDS, MADE_BY_THE_AGENT
from reconciler.model.kinds.security import DEFAULT, apparmor_is_beside, is_beside
from reconciler.model.objects import Origin
from reconciler.model.problems import Problem, excerpt, mapping_at, mappings_in, quoted, shown
from reconciler.sources.faults import Fault
from reconciler.sources.files import ManifestFile, Unreadable, path_beside, read_beside
from reconciler.sources.nodes import Document, Mark, Node, Path
from reconciler.sources.substitution import MOST_PUT_IN, Variables, substitute

_FIELDS: Final = ("apiVersion", "kind", "metadata", "spec")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object as a person wants it. `spec` is JSON, valid for its kind, and not to be changed in place."""

    key: Key
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: Mapping[str, Any]
    origin: Origin
    node: Node = field(repr=False, compare=False)
    """The whole document, by which places are found."""

    def fault(self, path: Path, message: str, advice: str = "") -> Fault:
        """A fault at `path` (from the document's root, such as `("spec", "mounts", 0)`) of this manifest."""
        return Fault(self.origin.file, *self.node.place(path), shown(path), message, advice)


@dataclass(slots=True)
class Reading:
    """What one document came to: a manifest or faults; `key` whenever kind and name could be read."""

    key: Key | None = None
    manifest: Manifest | None = None
    faults: list[Fault] = field(default_factory=list)


def read_manifest(document: Document, source: ManifestFile, variables: Variables) -> Reading:
    """Make a manifest of a document."""
    return _Steps(document, source, variables).done()


class _Steps:
    """The steps for one document, in order; `_problem` remembers where faults stand."""

    def __init__(self, document: Document, source: ManifestFile, variables: Variables) -> None:
        self.document, self.source, self.variables = document, source, variables
        self.root = document.root
        self.room = MOST_PUT_IN
        self.faults = list(document.faults)
        self.taken: set[Mark] = {(fault.line, fault.column) for fault in document.faults}

    def done(self) -> Reading:
        """All steps."""
        self._empty_values()
        if not isinstance(self.root.value, dict):
            self._problem(Problem((), "is not a manifest", "begin with apiVersion, kind, metadata and spec"))
            return Reading(faults=self.faults)
        if b"${" in self.source.data:
            self.root.replace_scalars(self._substituted)
        kind = self._kind()
        key = self._key(kind)
        self._top_level(kind)
        self._doubtful_texts()
        if self.faults or key is None:
            return Reading(key, faults=sorted(self.faults))
        spec = self._with_files(self.root.value.get("spec", {}))
        if self.faults:
            return Reading(key, faults=self.faults)
        return Reading(key, self._manifest(key, spec))

    def _problem(self, problem: Problem) -> None:
        """Note a problem where it stands, unless a fault that was noted before the checks stands there too."""
        node = self.root.at(problem.path)
        place = self.root.place(problem.path, at_key=problem.at_key)
        if place in self.taken and node is not None:
            return
        message, advice = problem.message, problem.advice
        if problem.text_due and node is not None and node.text is not None:
            message, advice = f"{self._echo(node)} is not text", self._quote(node)
        self.faults.append(Fault(self.source.shown, *place, shown(problem.path), message, advice))

    def _echo(self, node: Node) -> str:
        """The text as it stands in the file, but never a Secret's."""
        return "it" if self.root.value.get("kind") == Kind.SECRET else excerpt(node.text)

    def _quote(self, node: Node) -> str:
        return "quote it" if self.root.value.get("kind") == Kind.SECRET else f"quote it: {quoted(node.text or '')}"

    def _empty_values(self) -> None:
        paths = self._paths({id(node) for node in self.document.doubtful if node.value is None})
        for path, node in paths:
            if path:
                self._problem(Problem(path, "has no value", "write one, or leave the key out"))
                self.taken.add(node.mark)

    def _paths(self, wanted: set[int]) -> Iterator[tuple[Path, Node]]:
        if wanted:
            yield from ((path, node) for path, node in self.root.walk() if id(node) in wanted)

    def _substituted(self, path: Path, node: Node) -> Any:
        if not isinstance(node.value, str):
            return node.value

        def wrong(message: str, advice: str) -> None:
            self._problem(Problem(path, message, advice))

        before = len(self.faults)
        text = substitute(node.value, self.variables, wrong, self.room)
        self.room -= max(0, len(text) - len(node.value))
        if len(self.faults) > before:
            self.taken.add(node.mark)
        return text

    def _kind(self) -> Kind | None:
        """The kind, when it is one that people write."""
        value = self.root.value.get("kind")
        if value in WRITTEN_BY_PEOPLE:
            return Kind(value)
        known = ", ".join(WRITTEN_BY_PEOPLE)
        path: Path = ("kind",)
        if "kind" not in self.root.value:
            self._problem(Problem(path, "is missing", f"write one of {known}"))
        elif value in LATER_KINDS:
            self._problem(Problem(path, f"{value} is not supported yet", "leave this document out"))
        elif value in MADE_BY_THE_AGENT:
            self._problem(Problem(path, f"{value} objects are made by the agent", "leave this document out"))
        else:
            self._problem(Problem(path, f"there is no kind {excerpt(value)}", f"write one of {known}"))
        return None

    def _key(self, kind: Kind | None) -> Key | None:
        """The object's key, when kind and name are fit for one; the problems are those of `metadata`."""
        metadata = self.root.value.get("metadata")
        if "metadata" not in self.root.value:
            self._problem(Problem(("metadata",), "is missing", "write metadata: {name: …}"))
            return None
        if not isinstance(metadata, dict):
            self._problem(Problem(("metadata",), "is not a mapping", "write metadata: {name: …}"))
            return None
        problems = check_metadata(metadata)
        for problem in problems:
            self._problem(problem)
        if kind is None or any(problem.path == ("metadata", "name") for problem in problems):
            return None
        return Key(kind, checked_name(metadata["name"]))

    def _top_level(self, kind: Kind | None) -> None:
        """apiVersion, unknown keys, and the spec."""
        whole = self.root.value
        if "apiVersion" not in whole:
            self._problem(Problem(("apiVersion",), "is missing", f"write apiVersion: {API_VERSION}"))
        elif whole["apiVersion"] != API_VERSION:
            text = excerpt(whole["apiVersion"])
            self._problem(Problem(("apiVersion",), f"{text} is not known here", f"write {API_VERSION}"))
        for name in whole:
            if name == "status":
                self._problem(Problem((name,), "is written by the agent", "leave it out", at_key=True))
            elif name not in _FIELDS:
                self._problem(unknown_key(name, list(_FIELDS), (name,)))
        spec = whole.get("spec", {})
        if not isinstance(spec, dict):
            self._problem(Problem(("spec",), "is not a mapping", "write key: value pairs, indented below it"))
        elif kind is not None:
            self._spec(kind, spec)

    def _spec(self, kind: Kind, spec: Mapping[str, Any]) -> None:
        places: list[tuple[Path, Mapping[str, Any]]] = [(("security",), mapping_at(spec, "security"))]
        places += [(("mounts", i), mount) for i, mount in mappings_in(spec, "mounts")]
        for place, value in places:
            for name in CARRIED.keys() & value.keys():
                problem = Problem(("spec", *place, name), "is written by the agent", CARRIED[name], at_key=True)
                self._problem(problem)
        for problem in check_spec(kind, spec):
            self._problem(problem)

    def _doubtful_texts(self) -> None:
        """Plain texts that other readers take for something else, where nothing else was wrong with them."""
        self.taken |= {(fault.line, fault.column) for fault in self.faults}
        wanted = {id(node) for node in self.document.doubtful if node.value is not None}
        for path, node in self._paths(wanted):
            advice = self._quote(node) if isinstance(node.value, str) else "write it as a decimal number"
            self._problem(Problem(path, f"{self._echo(node)} means different things to YAML readers", advice))

    def _with_files(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The spec with the content of the files in it that it names, and with the whole path of its archive."""
        if not os.path.isabs(spec.get("archive", "/")):
            return {**spec, "archive": self._archive(spec["archive"])}
        security = mapping_at(spec, "security")
        if is_beside(security.get("seccomp", DEFAULT)) or apparmor_is_beside(security.get("apparmor")):
            spec = {**spec, "security": self._security(dict(security))}
        mounts = spec.get("mounts", [])
        if not any("file" in mount for mount in mounts):
            return spec
        return {**spec, "mounts": [self._mount(i, mount) for i, mount in enumerate(mounts)]}

    def _archive(self, path: str) -> str:
        try:
            return path_beside(self.source, path)
        except Unreadable as error:
            self._problem(Problem(("spec", "archive"), f"{excerpt(path)} {error.message}", error.advice))
            return path

    def _security(self, security: dict[str, Any]) -> dict[str, Any]:
        """With the profiles that lie beside the manifest, which must be such."""
        from core.runtime import apparmor, seccomp  # few manifests have one

        if is_beside(security.get("seccomp", DEFAULT)):
            security = self._carrying(security, "seccomp", seccomp.parse)
        if apparmor_is_beside(security.get("apparmor")):
            security = self._carrying(security, "apparmor", apparmor.parse)
        return security

    def _carrying(self, security: dict[str, Any], name: str, parse: Callable[[bytes, str], object]) -> dict[str, Any]:
        place: Path = ("spec", "security", name)
        path = excerpt(security[name])
        try:
            content = read_beside(self.source, security[name])
            parse(content, path)
        except Unreadable as error:
            self._problem(Problem(place, f"{path} {error.message}", error.advice))
            return security
        except Invalid as error:
            self._problem(Problem(place, error.message, error.hint().rstrip(".")))
            return security
        return {**security, f"{name}Content": base64.b64encode(content).decode()}

    def _mount(self, i: int, mount: dict[str, Any]) -> dict[str, Any]:
        if "file" not in mount:
            return mount
        try:
            content = read_beside(self.source, mount["file"])
        except Unreadable as error:
            path: Path = ("spec", "mounts", i, "file")
            self._problem(Problem(path, f"{excerpt(mount['file'])} {error.message}", error.advice))
            return mount
        return {**mount, "fileContent": base64.b64encode(content).decode()}

    def _manifest(self, key: Key, spec: dict[str, Any]) -> Manifest:
        metadata = self.root.value["metadata"]
        origin = Origin(self.source.shown, self.root.mark[0])
        return Manifest(key, metadata.get("labels", {}), metadata.get("annotations", {}), spec, origin, self.root)
