"""Run forms: what a person may change of a recipe in the Prefect UI.

Titles, descriptions and bounds are those of the recipe's models; each stage says which keys its form shows.
Every field may be left empty and then means what the recipe says; what is filled in becomes one `key=value`,
checked with the whole recipe before any work. The server checks types, choices and bounds already when the
form is sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Final, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
)
from pydantic.json_schema import SkipJsonSchema

from data.errors import ConfigError
from flows.config.recipe import Recipe
from rewards import reward_kind, reward_kinds
from tasks.stages import STAGES


class RecipeForm(BaseModel):
    """Base of the nested forms: nothing unknown; an empty field stands for the recipe's own value."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    recipe_keys: ClassVar[Mapping[str, str]] = {}
    """Recipe key of each field."""

    def overrides(self) -> list[str]:
        """What was filled in, each as `key=value`: a text is itself, all else in JSON, which is YAML."""
        return [
            f"{self.recipe_keys[name]}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in self.model_dump(mode="json").items()
        ]

    @model_serializer(mode="wrap")
    def _filled_in(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # The form shows what this gives, and takes it back: no field that is null.
        return {name: value for name, value in handler(self).items() if value is not None}


def form_of(name: str, does: str, own: str, keys: tuple[str, ...]) -> type[RecipeForm]:
    """A form of some keys of the recipe.

    Args:
        name: of the form, one word.
        does: what it changes, in a sentence.
        own: the part of the recipe whose name is left out of the fields' names.
        keys: of the recipe, in the order of the form.

    Raises:
        KeyError: the recipe has no such key.
    """
    fields: dict[str, Any] = {}
    recipe_keys: dict[str, str] = {}
    for position, key in enumerate(keys):
        field = key.removeprefix(f"{own}.").replace(".", "_")
        fields[field] = _field(key, position, foreign=not key.startswith(f"{own}."))
        recipe_keys[field] = key
    title = name.capitalize()
    form: type[RecipeForm] = create_model(f"{title}Form", __base__=RecipeForm, __module__=__name__, **fields)
    form.model_config["title"] = title
    form.__doc__ = f"{does} Empty fields: as the recipe says."
    form.recipe_keys = recipe_keys
    form.model_rebuild(force=True)
    return form


def _field(key: str, position: int, foreign: bool) -> tuple[Any, Any]:
    """Type and pydantic field of one recipe key, empty unless it is filled in."""
    model: type[BaseModel] = Recipe
    titles = []
    *parts, last = key.split(".")
    for part in parts:
        if part in reward_kinds():  # settings of a reward, whatever it is called in the recipe
            titles.append(part.title())
            model = reward_kind(part).settings
            continue
        titles.append(model.model_fields[part].title or part)
        kind = model.model_fields[part].annotation
        assert isinstance(kind, type)
        assert issubclass(kind, BaseModel)
        model = kind
    setting = model.model_fields[last]
    kinds = [one for one in _members(setting.annotation) if one is not NoneType]
    inner: Any = kinds[0]  # where a recipe takes several kinds: the UI shows one input for one kind
    for bound in setting.metadata:  # inside the union: there they become JSON Schema's minimum and maximum
        inner = Annotated[inner, bound]

    def extra(schema: dict[str, Any]) -> None:
        schema.pop("default", None)
        schema["position"] = position  # Postgres keeps no order of its own

    title = ": ".join([*titles, setting.title or last]) if foreign else setting.title
    field = Field(default=None, title=title, description=setting.description, json_schema_extra=extra)
    return inner | SkipJsonSchema[None], field  # type: ignore[misc]  # a value here, no type


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


FORMS: Final[Mapping[str, type[RecipeForm]]] = {
    **{name: form_of(name, spec.does, name, spec.form) for name, spec in STAGES.items()},
    "improve": form_of(
        "improve",
        "Rounds in a row.",
        "improve",
        (
            "improve.rounds",
            "improve.patience",
            "improve.error",
            "improve.data",
            "improve.prompts_per_round",
            "improve.max_clips",
            "improve.max_minutes",
        ),
    ),
    "night": form_of(
        "night",
        "What a night learns from.",
        "improve",
        (
            "improve.data",
            "improve.window",
            "improve.prompts_per_round",
            "improve.explore_fraction",
            "improve.error",
            "improve.horizon",
            "improve.reexamine_every",
        ),
    ),
}


def overrides_of(parameters: Mapping[str, Any]) -> list[str]:
    """What a form changes of its recipe; the later ones of two that say the same win.

    Args:
        parameters: of a flow run; nested forms as models, or as the dicts that the API keeps.

    Raises:
        ConfigError: its overrides are no texts.
        pydantic.ValidationError: a form is filled in with what its fields do not take.
    """
    changes: list[str] = []
    if parameters.get("seed") is not None:
        changes.append(f"seed={parameters['seed']}")
    for name, form in FORMS.items():
        given = parameters.get(name)
        if given is not None:
            changes += form.model_validate(given).overrides()
    said = parameters.get("overrides") or []
    if not isinstance(said, list | tuple) or not all(isinstance(one, str) for one in said):
        raise ConfigError("overrides: expected a list of texts such as finetune.steps=100")
    return [*changes, *said]
