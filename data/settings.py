"""Settings: one frozen, strict model for each component, which owns its fields' meaning, bounds and defaults.

A recipe composes these models; run forms, `plan --resolved` and the reference page of all settings are made
from them, and the component computes with the very same object. Nothing is copied field by field.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

Other = TypeVar("Other", bound="Settings")

_UNIT: Final = "unit"
_COST_ONLY: Final = "cost_only"
_NAMED_BY: Final = "named_by"
_FORMERLY: Final = "formerly"
PRIVATE: Final = "private"


class RenamedKey(FutureWarning):
    """A recipe uses a key of the release before, under its former name or with no effect any more."""


class Settings(BaseModel):
    """Base of every component's settings: unknown keys, wrong types and values out of bounds are errors."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=True
    )
    RETIRED: ClassVar[Mapping[str, str]] = {}
    """Keys of the release before that nothing reads any more, and why; the next release refuses them."""

    @model_validator(mode="before")
    @classmethod
    def _new_names(cls, given: Any) -> Any:
        """Keys under their former names, with a warning that names the new one; without those retired."""
        if not isinstance(given, Mapping):
            return given
        said = dict(given)
        for name, field in cls.model_fields.items():
            former = extra_of(field.json_schema_extra, _FORMERLY)
            if former in said:
                if name in said:
                    raise ValueError(f"{former} and {name} are one setting: say {name} only")
                warnings.warn(f"the key {former} is now called {name}", RenamedKey, stacklevel=2)
                said[name] = said.pop(former)
        for key in cls.RETIRED.keys() & said.keys():
            warnings.warn(f"the key {key} is no longer read: {cls.RETIRED[key]}", RenamedKey, stacklevel=2)
            del said[key]
        return said

    def changed(self, **fields: Any) -> Self:
        """The same with some fields replaced, checked again. Raises pydantic.ValidationError."""
        return self.as_part(type(self), **fields)

    def as_part(self, kind: type[Other], **fields: Any) -> Other:
        """`kind`, a base of this class or derived from it, with our values of the fields that both have.

        Args:
            kind: the settings of one of several components.
            fields: further values, or others; checked as in `changed`.
        """
        shared = type(self).model_fields.keys() & kind.model_fields.keys()
        said = {name: getattr(self, name) for name in shared} | fields
        return kind.model_validate({key_of(kind, name): value for name, value in said.items()})

    def fingerprint(self) -> dict[str, Any]:
        """What of the settings decides a result, as plain JSON values.

        Fields at their default are left out, so that one that comes later changes no key; a default that
        changes is a new version of its component. Fields that only change what a result costs (`cost_only`)
        are left out as well, and those that something else in the key names (`named_by`).
        """
        said: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            extra = field.json_schema_extra
            elsewhere = extra_of(extra, _COST_ONLY) or extra_of(extra, _NAMED_BY)
            if not elsewhere and value != field.get_default(call_default_factory=True):
                said[name] = _plain(value)
        return said


def setting(
    default: Any,
    title: str,
    description: str,
    *,
    unit: str = "",
    cost_only: bool = False,
    named_by: str = "",
    formerly: str = "",
    private: bool = False,
    **bounds: Any,
) -> Any:
    """A field of `Settings`.

    Args:
        default: its value where nothing is said; `...`: it must be said.
        title: two or three words, for forms.
        description: what it does, and where the default comes from.
        unit: of the value, for example "s" or "px"; "" for none.
        cost_only: it changes what a result costs and not the result, beyond rounding.
        named_by: what else in a key decides by it, and so stands for it, for example "the policy's id".
        formerly: the name that the key had before; recipes that use it are told the new one.
        private: it names a machine or may hold a secret: left out where a recipe is handed to others.
        bounds: of `pydantic.Field`: ge, gt, le, lt, min_length, max_length, pattern.
    """
    extra: dict[str, Any] = {
        _UNIT: unit, _COST_ONLY: cost_only, _NAMED_BY: named_by, _FORMERLY: formerly, PRIVATE: private,
    }  # fmt: skip
    return Field(
        default=default,
        title=title,
        description=description,
        json_schema_extra={name: value for name, value in extra.items() if value},
        **bounds,
    )


class one_of:  # reads as what it does: Annotated[str, one_of(names)]
    """Marks a text as one of the names that a registry has when it is asked; forms offer them.

    Args:
        names: of the registry, plug-ins included.
    """

    def __init__(self, names: Callable[[], Sequence[str]]) -> None:
        self._names = names

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"enum": list(self._names())}

    def _known(self, name: str) -> str:
        known = self._names()
        if name not in known:
            raise ValueError(f"it must be one of {', '.join(known)}")
        return name


def key_of(model: type[BaseModel], name: str) -> str:
    """What a recipe calls a field: its name, but where Python keeps that word for itself."""
    field = model.model_fields.get(name)
    return (field.alias if field is not None else None) or name


def extra_of(extra: object, name: str) -> Any:
    """What a field's `json_schema_extra` says under one of the names above; None: nothing."""
    return extra.get(name) if isinstance(extra, Mapping) else None


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.fingerprint()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Item = TypeVar("Item")
Several = Annotated[tuple[Item, ...], BeforeValidator(_as_tuple)]
"""A sequence in a recipe: a list in YAML, a tuple in Python, so that settings can be keys of a cache."""
