"""Run forms: what a person may change of a recipe in the Prefect UI.

Titles, descriptions and bounds are those of `flows.config.recipe`. Every field may be left empty and then
means what
the recipe says; what is filled in becomes one `key=value`, checked with the whole recipe before any work. The
server checks types, choices and bounds already when the form is sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
)
from pydantic.json_schema import SkipJsonSchema

from flows.config.load import offered
from flows.config.recipe import Recipe


class StageForm(BaseModel):
    """Base of the nested forms: nothing unknown; an empty field stands for the recipe's own value."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    recipe_keys: ClassVar[Mapping[str, str]] = {}
    """Recipe key of each field."""

    def overrides(self) -> list[str]:
        """What was filled in, each as `key=value` (a value in JSON is a value in YAML)."""
        return [
            f"{self.recipe_keys[name]}={json.dumps(value)}"
            for name, value in self.model_dump(mode="json").items()
        ]

    @model_serializer(mode="wrap")
    def _filled_in(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # The form shows what this gives, and takes it back: no field that is null.
        return {name: value for name, value in handler(self).items() if value is not None}


def form_of(own: str, *keys: str) -> type[StageForm]:
    """A form with the recipe's `keys`, in this order; `own` is the part whose name is left out."""
    fields: dict[str, Any] = {}
    names: dict[str, str] = {}
    for place, key in enumerate(keys):
        name = key.removeprefix(f"{own}.").replace(".", "_")
        fields[name], names[name] = _field(key, place, foreign=not key.startswith(f"{own}.")), key
    made: type[StageForm] = create_model(f"{own.title()}Fields", __base__=StageForm, **fields)
    made.recipe_keys = names
    return made


def _field(key: str, place: int, foreign: bool) -> tuple[Any, Any]:
    """Type and pydantic field of one recipe key, empty unless it is filled in."""
    model: type[BaseModel] = Recipe
    titles = []
    *parts, last = key.split(".")
    for part in parts:
        titles.append(model.model_fields[part].title or part)
        kind = model.model_fields[part].annotation
        assert isinstance(kind, type)
        assert issubclass(kind, BaseModel)
        model = kind
    said = model.model_fields[last]
    kinds = [one for one in _members(said.annotation) if one is not NoneType]
    inner: Any = Union[tuple(kinds)]  # noqa: UP007  (made of values)
    for bound in said.metadata:  # inside the union: there they become JSON Schema's minimum and maximum
        inner = Annotated[inner, bound]

    def extra(schema: dict[str, Any]) -> None:
        schema.pop("default", None)
        schema["position"] = place  # Postgres keeps no order of its own

    title = ": ".join([*titles, said.title or last]) if foreign else said.title
    given = Field(default=None, title=title, description=said.description, json_schema_extra=extra)
    return inner | SkipJsonSchema[None], given  # type: ignore[misc]  # a value here, no type


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


_Generate: Any = form_of(
    "generate",
    "generate.prompts",
    "generate.clips_per_prompt",
    "generate.batch_size",
    "generate.steps",
    "generate.guidance",
)


class GenerateForm(_Generate):  # type: ignore[misc]  # a class made of the recipe's fields
    """Stage 1, clips from the policy. Empty fields: as the recipe says."""

    model_config = ConfigDict(title="Generate")


_Score: Any = form_of(
    "score",
    "rewards",
    "score.max_failed_share",
    "judge.backend",
    "judge.url",
)


class ScoreForm(_Score):  # type: ignore[misc]  # a class made of the recipe's fields
    """Stage 2, what the rewards say of the clips. Empty fields: as the recipe says."""

    model_config = ConfigDict(title="Score")


_Curate: Any = form_of(
    "curate",
    "feedback",
    "shaping.kind",
    "shaping.threshold",
    "curate.pairs_per_prompt",
    "curate.margin",
)


class CurateForm(_Curate):  # type: ignore[misc]  # a class made of the recipe's fields
    """Stage 3, what is worth learning from. Empty fields: as the recipe says."""

    model_config = ConfigDict(title="Curate")


_Finetune: Any = form_of(
    "finetune",
    "finetune.objective",
    "finetune.beta",
    "finetune.steps",
    "finetune.batch_size",
    "finetune.micro_batch",
    "finetune.lr",
    "finetune.rank",
)


class FinetuneForm(_Finetune):  # type: ignore[misc]  # a class made of the recipe's fields
    """Stage 4, learning. Empty fields: as the recipe says."""

    model_config = ConfigDict(title="Finetune")


_Evaluate: Any = form_of(
    "evaluate",
    "evaluate.metric",
    "evaluate.same_as_feedback",
    "evaluate.prompts",
    "evaluate.clips",
)


class EvaluateForm(_Evaluate):  # type: ignore[misc]  # a class made of the recipe's fields
    """Stage 5, before against after. Empty fields: as the recipe says."""

    model_config = ConfigDict(title="Evaluate")


_Improve: Any = form_of(
    "improve",
    "improve.rounds",
    "improve.patience",
    "improve.data",
    "improve.prompts_per_round",
    "improve.max_clips",
    "improve.max_minutes",
)


class ImproveForm(_Improve):  # type: ignore[misc]  # a class made of the recipe's fields
    """Rounds in a row. Empty fields: as the recipe says."""

    model_config = ConfigDict(title="Improve")


_Night: Any = form_of(
    "improve",
    "improve.data",
    "improve.window",
    "improve.prompts_per_round",
    "improve.explore",
)


class NightForm(_Night):  # type: ignore[misc]  # a class made of the recipe's fields
    """What a night learns from. Empty fields: as the recipe says."""

    model_config = ConfigDict(title="Night")


def titled(title: str) -> Any:
    """What shows over a field of the form; Prefect would take the parameter's name."""
    return Field(json_schema_extra={"title": title})


# The types of the forms' first fields. Only the form insists on one of the recipes: in code any path will do.
RecipeField = Annotated[str, Field(json_schema_extra={"title": "Recipe", "enum": [*offered()]})]
StoreField = Annotated[str, titled("Store")]
SeedField = Annotated[
    Annotated[int, Field(ge=0, lt=2**53)] | SkipJsonSchema[None], Field(json_schema_extra={"title": "Seed"})
]
DryRunField = Annotated[bool, titled("Dry run")]
OverridesField = Annotated[list[str], titled("Other settings")]
# Part of a round that has begun: for the flows among themselves, not in the form.
RunField = SkipJsonSchema[str]

FORMS: Mapping[str, type[StageForm]] = {
    "generate": GenerateForm,
    "score": ScoreForm,
    "curate": CurateForm,
    "finetune": FinetuneForm,
    "evaluate": EvaluateForm,
    "improve": ImproveForm,
    "night": NightForm,
}


def overrides_of(parameters: Mapping[str, Any]) -> list[str]:
    """What a form changes of its recipe; the later ones of two that say the same win.

    Args:
        parameters: of a flow run; nested forms as models, or as the dicts that the API keeps.
    """
    told: list[str] = []
    if parameters.get("seed") is not None:
        told.append(f"seed={parameters['seed']}")
    for name, form in FORMS.items():
        given = parameters.get(name)
        if given is not None:
            told += form.model_validate(given).overrides()
    return [*told, *(parameters.get("overrides") or [])]
