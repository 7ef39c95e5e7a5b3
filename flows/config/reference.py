"""The reference page of all settings, made from the models that check a recipe.

python -m flows.config.reference docs/reference/settings.md
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from flows.config.recipe import Recipe
from rewards import reward_kinds

_HEAD: Final = """# Settings

Every key of a recipe, from the models that check it. `vidloop plan --resolved` prints a recipe with all of
them; `--set a.b=c` changes one. Made by `make generated`.

**`--set KEY=TEXT`.** Where the key takes a text, or one of several words, the value is TEXT to the letter,
whatever is in it: `#`, colons, quotes, words such as `no`, nothing at all
(`--set "generate.negative_prompt=worst quality #1: blurry"`, `--set clip.pretrained=`). A text that may be
left out (default `null`) is left out by `null`, `~` or nothing; `policy` is a part where TEXT begins with a
brace. For every other key TEXT is read as YAML: `--set "evaluate.also=[dev, unseen]"`.

**YAML.** Recipes, studies and rubrics are YAML in UTF-8, with the numbers of YAML 1.2: `012` is 12, `0o14`
and `0x0c` are 12, `1e-4` is a number; `1:30`, `1_000` and `2026-11-30` are texts. A bare `yes`, `no`, `on` or
`off` is true or false, but as a key it is that word. Anchors and aliases may be used, merge keys (`<<`) not.
A file has 256 KiB at most with its aliases written out, and 50 parts inside one another; of anything longer,
a device included, no more is read.
"""
_BOUNDS: Final = {
    "minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}",
    "minItems": "at least {}", "maxItems": "at most {}",
}  # fmt: skip

Schema = Mapping[str, Any]


def settings_page() -> str:
    """The page, as Markdown."""
    schema = Recipe.model_json_schema()
    parts = {name: _part(one, schema) for name, one in schema["properties"].items()}
    single = {name: schema["properties"][name] for name, part in parts.items() if part is None}
    lines = [_HEAD, *_table("", {"properties": single}, schema)]
    for name, part in parts.items():
        if part is not None:
            lines += ["", f"## {name}", "", _said(schema["properties"][name]), ""]
            lines += _table(f"{name}.", part, schema)
    for name, kind in reward_kinds().items():
        own = kind.settings.model_json_schema()
        low, high = (f"{end:g}" if math.isfinite(end) else "any" for end in kind.range)
        said = f"{own['description']} Reads {kind.reads}; values from {low} to {high}."
        lines += ["", f"## Reward {name}", "", said, ""]
        lines += _table(f"{name}.", own, own) if own.get("properties") else ()
    return "\n".join(lines) + "\n"


def _table(prefix: str, part: Schema, schema: Schema) -> list[str]:
    return ["| key | value | default | |", "|---|---|---|---|", *_rows(prefix, part, schema)]


def _rows(prefix: str, part: Schema, schema: Schema) -> Iterator[str]:
    for name, field in part["properties"].items():
        inner = _part(field, schema)
        if inner is not None:
            yield from _rows(f"{prefix}{name}.", inner, schema)
            continue
        default = f"`{json.dumps(field['default'])}`" if "default" in field else "none"
        cells = (f"`{prefix}{name}`", _kind(field, schema), default, _said(field))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _part(field: Schema, schema: Schema) -> Schema | None:
    """The model that a field is, also where it may be null; None for a plain value."""
    for one in (field, *field.get("anyOf", ())):
        found: Schema = schema["$defs"][one["$ref"].rsplit("/", 1)[1]] if "$ref" in one else {}
        if "properties" in found:
            return found
    return None


def _kind(field: Schema, schema: Schema) -> str:
    """Type, choices and bounds in a few words."""
    if "$ref" in field:
        return _kind(schema["$defs"][field["$ref"].rsplit("/", 1)[1]], schema)
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_kind(one, schema) for one in field["anyOf"]))
    if "const" in field or "enum" in field:
        return ", ".join(f"`{one}`" for one in field.get("enum", [field.get("const")]))
    name: str = field.get("type", "anything")
    kind = {"array": "list", "object": "mapping"}.get(name, name)
    if kind == "list" and "items" in field:
        kind = f"list of {_kind(field['items'], schema)}"
    bounds = ", ".join(text.format(field[bound]) for bound, text in _BOUNDS.items() if bound in field)
    return " ".join(filter(None, (kind, bounds, field.get("unit"))))


def _said(field: Schema) -> str:
    title, text = field.get("title", ""), field.get("description", "").replace("\n", " ")
    return f"{title}: {text}" if title else text


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(settings_page(), encoding="utf-8")
