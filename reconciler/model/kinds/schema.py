"""JSON Schema (draft 2020-12) of whole documents, for editors."""

from __future__ import annotations

from typing import Any, Final

from reconciler.model.identity import API_VERSION, Kind
from reconciler.model.kinds import spec_model
from reconciler.model.kinds.base import Metadata
from reconciler.model.kinds.container import MOUNT_SOURCES

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def json_schema(kind: Kind) -> dict[str, Any]:
    """The schema of a document of `kind`; raises `Invalid` for kinds that people do not write."""
    spec = spec_model(kind).model_json_schema()
    metadata = Metadata.model_json_schema()
    definitions = {**spec.pop("$defs", {}), **metadata.pop("$defs", {})}
    if "Mount" in definitions:
        definitions["Mount"]["properties"].pop("fileContent")
        definitions["Mount"]["oneOf"] = [{"required": [source]} for source in MOUNT_SOURCES]
    if "Security" in definitions:
        for carried in ("seccompContent", "apparmorContent"):
            definitions["Security"]["properties"].pop(carried)
            spec["properties"]["security"]["default"].pop(carried)
    if kind is Kind.CONTAINER:
        spec["not"] = {"required": ["sandbox", "network"]}
    if kind is Kind.SOURCE:
        spec["oneOf"] = [{"required": ["git"]}, {"required": ["folder"]}]
    return {
        "$schema": DIALECT,
        "title": kind.value,
        "type": "object",
        "additionalProperties": False,
        "required": ["apiVersion", "kind", "metadata", *(["spec"] if spec.get("required") else [])],
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": kind.value},
            "metadata": metadata,
            "spec": spec,
        },
        **({"$defs": definitions} if definitions else {}),
    }
