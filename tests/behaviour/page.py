"""Speak to the page as a browser does: its layout, its callbacks, and what a callback answers, all
over HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.testclient import TestClient

Node = dict[str, Any]


def walk(node: Any) -> Iterator[Node]:
    """Every element of a layout that has an id, depth first, those in properties other than
    children too.
    """
    if isinstance(node, list):
        for part in node:
            yield from walk(part)
    elif isinstance(node, dict):
        if isinstance(node.get("props"), dict) and isinstance(node["props"].get("id"), str):
            yield node
        for part in node.values():
            yield from walk(part)


class Browser:
    """What a browser holds: every property as the layout or the last answer left it."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.layout = client.get("/_dash-layout").json()
        self.callbacks: list[Node] = client.get("/_dash-dependencies").json()
        self.held = {node["props"]["id"]: dict(node["props"]) for node in walk(self.layout)}

    def press(self, changed: str, wanted: str, **values: Any) -> Node:
        """Change a property, `id.property`, and return what the callback with the output `wanted`
        answers.

        `values` are what other controls show meanwhile, by their id.
        """
        for element, value in values.items():
            self.held[element.replace("_", "-")]["value"] = value
        (callback,) = [c for c in self.callbacks if self.calls(c, changed, wanted)]
        outputs = [self.place(name) for name in callback["output"].strip(".").split("...")]
        body = {
            "output": callback["output"],
            "outputs": outputs if callback["output"].startswith("..") else outputs[0],
            "inputs": [self.filled(each) for each in callback["inputs"]],
            "state": [self.filled(each) for each in callback["state"]],
            "changedPropIds": [changed],
        }
        answer = self.client.post("/_dash-update-component", json=body)
        assert answer.status_code == 200, f"{changed}: {answer.status_code} {answer.text}"
        found: Node = answer.json()["response"]
        for element, properties in found.items():
            self.held[element].update(properties)
        return found

    @staticmethod
    def calls(callback: Node, changed: str, wanted: str) -> bool:
        """Whether a change of that property calls it on the server, for that output."""
        asked = [f"{each['id']}.{each['property']}" for each in callback["inputs"]]
        outputs = callback["output"].strip(".").split("...")
        return changed in asked and wanted in outputs and not callback["clientside_function"]

    @staticmethod
    def place(name: str) -> Node:
        element, _, prop = name.rpartition(".")
        return {"id": element, "property": prop}

    def filled(self, each: Node) -> Node:
        value = self.held[each["id"]].get(each["property"])
        return {"id": each["id"], "property": each["property"], "value": value}
