"""What a flow run is asked for, and flows whose parameters are the fields of such a request.

A request is one model: the flow's parameters, their form in the Prefect UI and what the flow reads are made
from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar, get_type_hints

from prefect import Flow
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.json_schema import SkipJsonSchema

from data.errors import ConfigError
from data.explain import validated
from flows.config.load import load_recipe, offered
from flows.config.recipe import Recipe
from flows.reporting.messages import DEFAULT_RECIPE, DEFAULT_STORE
from flows.rounds import prefect_hooks
from flows.rounds.forms import FORMS, overrides_of

# A form's first and last fields, whatever stands between them.
_FIRST: Final = ("recipe", "store", "seed", "from_stage", "dry_run")
_LAST: Final = ("overrides", "run", "promotion")

prefect_hooks.do_not_join_heartbeats()
prefect_hooks.leave_parameters_to_the_flow()


def titled(title: str, **schema: Any) -> Any:
    """What shows over a field of the form; Prefect would take the parameter's name."""
    return Field(json_schema_extra={"title": title, **schema})


StoreField = Annotated[str, titled("Store")]
OverridesField = Annotated[list[str], titled("Other settings")]


class RunRequest(BaseModel):
    """Something to be run by a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Only the form insists on one of the recipes: in code any path will do.
    recipe: Annotated[str, titled("Recipe", enum=[*offered()])] = Field(
        DEFAULT_RECIPE, description="The settings to start from: one of vidloop's recipes."
    )
    store: StoreField = Field(
        DEFAULT_STORE, description="The folder, or s3://BUCKET/PREFIX, that keeps everything."
    )
    seed: Annotated[Annotated[int, Field(ge=0, lt=2**53)] | SkipJsonSchema[None], titled("Seed")] = Field(
        None, description="All randomness derives from it; empty: the recipe's."
    )
    dry_run: Annotated[bool, titled("Dry run")] = Field(
        False, description="Only say what would run, and what the store holds already."
    )
    overrides: OverridesField = Field(
        [], description="Changes to anything else in the recipe, each like finetune.steps=100."
    )

    def changes(self) -> list[str]:
        """What is changed of the recipe, each as `key=value`."""
        return overrides_of(dict(self))

    def read_recipe(self, *more: str) -> Recipe:
        """The recipe with the changes, and with `more` of them. Raises ConfigError as `load_recipe`."""
        return load_recipe(self.recipe, [*self.changes(), *more])


class StageRequest(RunRequest):
    """A stage, alone or as a part of a round that has begun."""

    # For the flows among themselves, not in the form.
    run: SkipJsonSchema[str] = Field("", description="The round that this run is part of.")


Asked = TypeVar("Asked", bound=BaseModel)


def with_forms(request: type[Asked], **descriptions: str) -> type[Asked]:
    """`request` with run forms of these names, for the parts of the recipe that a person may change."""
    fields: dict[str, Any] = {
        name: (Annotated[FORMS[name], titled(name.capitalize())], Field(FORMS[name](), description=about))
        for name, about in descriptions.items()
    }
    return create_model(request.__name__, __base__=request, __module__=request.__module__, **fields)


class RequestFlow(Flow[..., Any]):
    """A flow that takes what its request takes, and says of anything else what it may have been meant to be.

    Attributes:
        request: the model of its parameters.
    """

    request: type[BaseModel]

    def validate_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """As `Flow`. Raises ConfigError, which becomes the message of the run's state."""
        try:
            validated(self.request, parameters, f"flow {self.name}")
        except ConfigError as error:
            if parameters.keys() <= self.request.model_fields.keys():
                raise
            raise ConfigError(f"{error}\nIt takes: {', '.join(self.parameters.properties)}") from None
        return super().validate_parameters(parameters)


def flow_of(
    name: str,
    request: type[Asked],
    does: str,
    body: Callable[[Asked], Any],
    run_name: Callable[[], str],
) -> Flow[..., Any]:
    """A flow whose parameters are the fields of `request`.

    Args:
        name: of the flow; `flow.fn` is called the same, as a Python name.
        request: what it takes.
        does: what it does, in a sentence or more.
        body: does it.
        run_name: names each run.
    """
    types = get_type_hints(request, include_extras=True)
    own = [name for name in request.model_fields if name not in (*_FIRST, *_LAST)]
    ordered = [name for name in (*_FIRST, *own, *_LAST) if name in request.model_fields]
    fields = [(name, request.model_fields[name]) for name in ordered]

    def run(**given: Any) -> Any:
        return body(request(**given))

    run.__name__ = run.__qualname__ = name.replace("-", "_")
    # Prefect reads types and defaults from the signature, and descriptions from the docstring.
    about = [f"{key}: {field.description}" for key, field in fields]
    run.__doc__ = "\n    ".join([f"{does}\n\nArgs:", *about])
    vars(run)["__signature__"] = inspect.Signature(
        [
            inspect.Parameter(
                key,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.get_default(call_default_factory=True),
                annotation=types[key],
            )
            for key, field in fields
        ]
    )
    flow = RequestFlow(run, name=name, flow_run_name=run_name, result_serializer="json")
    flow.request = request
    return flow
