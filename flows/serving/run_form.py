"""The run form of a deployment: what it offers, and what stands in it before a person has touched it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]


def fitted(
    schema: Schema, declared: Mapping[str, Any], chosen: Mapping[str, Any]
) -> tuple[Schema, dict[str, Any], list[str]]:
    """A form, the parameters of its deployment, and what a person should be told of them.

    Prefect refuses a deployment whose own parameters its form would refuse, and what is offered changes with
    the folders of recipes: they are made to fit each other here. A number that may be left empty has no
    default: Prefect writes `default: null`, which the page sends back and the server refuses. A list without
    choices takes anything. What nobody chose becomes the first choice if it is not offered. What somebody
    chose stays a choice when it is offered no longer: its next run says what is missing, where another recipe
    in its place would be a run that nobody asked for.

    Args:
        schema: of the flow's parameters, as Prefect makes it; left as it is.
        declared: the parameters of prefect.yaml.
        chosen: those that the server already holds; what the flow knows no more is not kept.
    """
    properties: Schema = {}
    parameters, said = dict(declared), []
    for name, given in schema["properties"].items():
        field = {key: value for key, value in given.items() if (key, value) != ("default", None)}
        if name in chosen:
            parameters[name] = chosen[name]
        choices = field.pop("enum", None)
        if choices:
            if name in chosen and chosen[name] not in choices:
                said.append(f"its {name} {chosen[name]} is no longer there: choose another in the UI")
                choices = [*choices, chosen[name]]
            field["enum"] = choices
            for place, key in ((parameters, name), (field, "default")):
                if key in place and place[key] not in choices:
                    place[key] = choices[0]
        properties[name] = field
    return {**schema, "properties": properties}, parameters, said
