"""Checks HTTP exchanges against OpenAPI documents: RunPod's own, where it is at hand, and our copy of a part of it.

Owns the matching of paths and the conversion of query parameters. Unknown paths, parameters, fields and statuses are
problems.
"""

import json
import os
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

OURS = Path(__file__).with_name("openapi.json")
_BESIDE = Path(__file__).parents[3] / "shared" / "data" / "runpod" / "openapi-v2.json"
THEIRS = Path(os.environ.get("RUNPOD_OPENAPI", _BESIDE))


class Document:
    """One OpenAPI 3.1 document."""

    def __init__(self, path: Path) -> None:
        self._document = json.loads(path.read_text(encoding="utf-8"))
        resource = Resource.from_contents(self._document, default_specification=DRAFT202012)
        self._registry = Registry().with_resource("urn:api", resource)
        self._validators: dict[str, Draft202012Validator] = {}

    def request(self, method: str, target: str, body: Any) -> list[str]:
        """The problems of a request."""
        split = urllib.parse.urlsplit(target)
        pointer, operation = self._operation(method, split.path)
        if operation is None:
            return [f"no operation {method} {split.path}"]
        found = list(self._query(pointer, operation, split.query))
        if "requestBody" in operation:
            found += self._problems(f"{pointer}/requestBody/content/application~1json/schema", body)
        elif body is not None:
            found.append(f"{method} {split.path} takes no body")
        return found

    def answer(self, method: str, target: str, status: int, body: Any) -> list[str]:
        """The problems of an answer."""
        pointer, operation = self._operation(method, urllib.parse.urlsplit(target).path)
        if operation is None:
            return []
        known = operation["responses"]
        code = str(status) if str(status) in known else "default"
        pointer, answer = self._followed(f"{pointer}/responses/{code}", known[code])
        content = answer.get("content", {})
        for kind in ("application/json", "application/problem+json"):
            if kind in content:
                return self._problems(f"{pointer}/content/{kind.replace('/', '~1')}/schema", body)
        return [] if body is None or content else [f"{method} {target} answers {status} without content"]

    def _operation(self, method: str, path: str) -> tuple[str, Any]:
        for template, operations in self._document["paths"].items():
            pattern = re.sub(r"\{\w+\}", "[^/]+", template)
            if re.fullmatch(pattern, path) and method.lower() in operations:
                escaped = template.replace("/", "~1")
                return f"#/paths/{escaped}/{method.lower()}", operations[method.lower()]
        return "", None

    def _query(self, pointer: str, operation: Any, query: str) -> Iterator[str]:
        known = {}
        for place, one in enumerate(operation.get("parameters", ())):
            at, parameter = self._followed(f"{pointer}/parameters/{place}", one)
            if parameter["in"] == "query":
                known[parameter["name"]] = (at, parameter)
        for name, value in urllib.parse.parse_qsl(query):
            if name not in known:
                yield f"no parameter {name}"
                continue
            at, parameter = known[name]
            yield from self._problems(f"{at}/schema", _converted(value, parameter["schema"]))

    def _followed(self, pointer: str, node: Any) -> tuple[str, Any]:
        while "$ref" in node:
            pointer = node["$ref"]
            node = self._document
            for part in pointer.removeprefix("#/").split("/"):
                node = node[part.replace("~1", "/")]
        return pointer, node

    def _problems(self, pointer: str, value: Any) -> list[str]:
        if pointer not in self._validators:
            quoted = urllib.parse.quote(pointer.removeprefix("#"), safe="/~")
            schema = {"$ref": f"urn:api#{quoted}"}
            self._validators[pointer] = Draft202012Validator(schema, registry=self._registry)
        found = self._validators[pointer].iter_errors(value)
        return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}"[:300] for error in found]


def _converted(value: str, schema: Any) -> Any:
    if schema.get("type") == "integer":
        return int(value)
    return value.split(",") if schema.get("type") == "array" else value


DOCUMENTS = [Document(path) for path in (OURS, THEIRS) if path.is_file()]
