"""docker-compose.yml as `docker compose` reads it: variables put in, services of the chosen profiles, in start order."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.tiny_round import ROOT

COMPOSE = ROOT / "docker-compose.yml"
# The name, then an operator and what follows it; or a $ that was written twice.
_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<operator>:?[-?])(?P<rest>[^}]*))?\})")


class Refused(Exception):
    """A variable that must be set is not; the message is the file's own."""


def text() -> str:
    return COMPOSE.read_text("utf-8")


def interpolate(value: Any, environment: Mapping[str, str]) -> Any:
    """`value` with every variable replaced in its strings, never in its keys. Raises Refused."""
    if isinstance(value, dict):
        return {key: interpolate(one, environment) for key, one in value.items()}
    if isinstance(value, list):
        return [interpolate(one, environment) for one in value]
    if not isinstance(value, str):
        return value

    def put(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        held = environment.get(found["name"])
        operator = found["operator"] or ""
        missing = held is None or (operator.startswith(":") and not held)
        if missing and operator.endswith("?"):
            raise Refused(f"{found['name']}: {found['rest']}")
        if missing:
            return found["rest"] if operator.endswith("-") else ""
        assert held is not None
        return held

    done = _VARIABLE.sub(put, value)
    assert "$" not in _VARIABLE.sub("", value), f"a form of variable that this reader does not know: {value}"
    return done


def project(environment: Mapping[str, str]) -> dict[str, Any]:
    """The whole file. Raises Refused."""
    tree: dict[str, Any] = interpolate(yaml.safe_load(text()), environment)
    return tree


def variables() -> set[str]:
    """Names of all variables that the file reads."""
    return {found["name"] for found in _VARIABLE.finditer(text()) if found["name"]}


def start_order(services: Mapping[str, Any], profiles: Collection[str]) -> list[str]:
    """Services without a profile or with one of `profiles`, each after those it depends on."""
    chosen = [
        name
        for name, one in services.items()
        if not one.get("profiles") or set(one["profiles"]) & set(profiles)
    ]
    order: list[str] = []
    while len(order) < len(chosen):
        able = [
            name
            for name in chosen
            if name not in order
            and all(
                other in order or (other not in chosen and not how.get("required", True))
                for other, how in services[name].get("depends_on", {}).items()
            )
        ]
        assert able, f"these wait for each other, or for one that never starts: {set(chosen) - set(order)}"
        order.append(able[0])
    return order


def image_environment(dockerfile: Path = ROOT / "Dockerfile") -> dict[str, str]:
    """ENV of the Dockerfile's last stage."""
    last = dockerfile.read_text("utf-8").replace("\\\n", " ").rpartition("\nFROM ")[2]
    lines = [line[4:] for line in last.splitlines() if line.startswith("ENV ")]
    return dict(pair.split("=", 1) for line in lines for pair in line.split())


def build_context(ignore: Path = ROOT / ".dockerignore") -> list[str]:
    """What the image's build gets to see, by .dockerignore: nothing but what it takes back."""
    rules = [line for line in ignore.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    return [rule[1:] for rule in rules if rule.startswith("!")]


def seconds(duration: str) -> float:
    """Compose's durations, for example 1m30s."""
    parts = re.findall(r"(\d+)(h|m|s)", duration)
    assert "".join(number + unit for number, unit in parts) == duration, duration
    return float(sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts))
