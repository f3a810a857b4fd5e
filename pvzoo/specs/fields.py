"""Building blocks of a spec's pydantic models: the strict base, and references to registered components."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Generic, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from ..errors import PluginError, UnknownNameError, a, did_you_mean
from ..plugins import host
from ..registry import Component, NoParams, Params

EVERY = "*"
MAX_DEPTH = 32
MAX_NUMBER = 2**63
M = TypeVar("M", bound=BaseModel)
Path = tuple[str | int, ...]
Faults = list[tuple[Path, str]]


def failure(title: str, faults: Faults) -> ValidationError:
    """Makes one ``ValidationError`` from (path, message) pairs; raised in a validator, pydantic adds the path above."""
    return ValidationError.from_exception_data(
        title,
        [InitErrorDetails(type=_custom(message), loc=path, input=None) for path, message in faults],
    )


def _custom(message: str) -> PydanticCustomError:
    return PydanticCustomError("pvzoo", "{message}", {"message": message})


class Section(BaseModel):
    """Base of every part of a spec: frozen, no unknown fields, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def explain(error: ValidationError, model: type[BaseModel]) -> Faults:
    """The faults of a ``ValidationError`` in pvzoo's words: misspelt fields with the nearest name, values shown."""
    faults: Faults = []
    for item in error.errors(include_url=False):
        message = item["msg"]
        if item["type"] == "too_short" and len(item["input"]) >= item["ctx"]["min_length"]:
            continue  # There are enough items, but they are wrong: that is said already.
        if item["type"] == "extra_forbidden":
            names = list(_model_at(model, item["loc"][:-1]).model_fields)
            message = f"unknown field{did_you_mean(str(item['loc'][-1]), names)}"
            message += "" if "did you mean" in message else f"; the fields are {', '.join(names) or 'none at all'}"
        elif item["type"] == "missing":
            message = "is required"
        elif item["type"] == "value_error":
            message = message.removeprefix("Value error, ")
        elif item["type"] != "pvzoo":
            message = message[0].lower() + message[1:]
            if isinstance(item["input"], str | int | float | bool):
                message += f", got {item['input']!r}"[:120]
        faults.append((item["loc"], message))
    return faults


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel]:
    """The model that a path inside ``model`` leads to; keys of mappings and indices of lists are passed over."""
    for part in path:
        if part in model.model_fields:
            model = _inner_model(model.model_fields[str(part)].annotation) or model
    return model


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_inner_model, get_args(annotation))), None)


def validate_strictly(model: type[M], data: Any) -> M:
    """Validates plain data as strict JSON: ``"8"`` is no number and ``true`` no count, but a list may be a tuple."""
    faults = list(_not_plain(data))
    if faults:
        raise failure(model.__name__, faults)
    return model.model_validate_json(json.dumps(data, default=_jsonable), strict=True)


def _not_plain(data: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Whatever JSON cannot hold, or cannot hold safely.

    Raises:
        ValidationError: At once, if data holds itself or is nested as deeply as if it did.
    """
    if len(path) > MAX_DEPTH:
        raise failure("data", [(path[:1], f"is nested more than {MAX_DEPTH} levels deep")])
    if isinstance(data, Mapping):
        for key, value in data.items():
            if not isinstance(key, str | int | float | None):
                yield path, f"{key!r} cannot be a key, which is text"
            else:
                yield from _not_plain(value, (*path, str(key)))
    elif isinstance(data, list | tuple):
        for position, value in enumerate(data):
            yield from _not_plain(value, (*path, position))
    elif isinstance(data, int) and abs(data) >= MAX_NUMBER:
        yield path, "the number is too large"
    elif not isinstance(data, str | int | float | BaseModel | None):
        kinds = "str, int, float, bool, None, list, dict"
        yield path, f"{repr(data)[:80]} is of type {type(data).__name__}, and not plain data ({kinds})"


def _jsonable(value: BaseModel | Mapping[Any, Any]) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else dict(value)


class Ref(Section):
    """A component by name, with its parameters: ``{name: arcface, params: {margin: 0.4}}``, or only ``arcface``.

    The name is looked up in the registry while the spec is validated, so components of plugins are checked like
    built-in ones.

    Attributes:
        name: Full name without revision, ``"acme/gated"``.
        revision: The revision that the name stands for.
        params: The component's own checked parameters.
    """

    kind: ClassVar[str]

    name: str
    revision: int = 1
    params: SerializeAsAny[Params] = NoParams()

    @model_validator(mode="wrap")
    @classmethod
    def _resolve(cls, data: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        if isinstance(data, cls):
            return data
        if isinstance(data, str):
            data = {"name": data}
        if not isinstance(data, dict):
            raise failure(cls.__name__, [((), f"should be the name of {a(cls.kind)}, or {{name: ..., params: ...}}")])
        faults: Faults = [
            ((key,), "arguments of a component go under 'params'") for key in data if key not in ("name", "params")
        ]
        if not isinstance(data.get("name"), str):
            raise failure(cls.__name__, [*faults, (("name",), f"the name of {a(cls.kind)} is required, as text")])
        entry = cls._find(data["name"], faults)
        params = cls._params(entry, data.get("params"), faults)
        return handler({"name": entry.name, "revision": entry.revision, "params": params})

    @classmethod
    def _find(cls, name: str, faults: Faults) -> Component:
        try:
            entry = host().find(cls.kind, name)
        except (UnknownNameError, PluginError) as error:
            raise failure(cls.__name__, [*faults, ((), str(error))]) from error
        assert isinstance(entry, Component)
        return entry

    @classmethod
    def _params(cls, entry: Component, data: Any, faults: Faults) -> Params:
        """The parameters; raises their faults together with those that were found before."""
        try:
            ready = isinstance(data, entry.params)
            params: Params = data if ready else validate_strictly(entry.params, {} if data is None else data)
        except ValidationError as error:
            found = [(("params", *path), message) for path, message in explain(error, entry.params)]
            raise failure(cls.__name__, [*faults, *found]) from error
        if faults:
            raise failure(cls.__name__, faults)
        return params

    @model_serializer(mode="wrap")
    def _pinned(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain = handler(self)
        return {"name": f"{self.name}@{self.revision}", "params": plain["params"]}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        names: list[Any] = []
        for entry in host().entries(cls.kind):
            assert isinstance(entry, Component)
            try:
                params = entry.params.model_json_schema()
            except PydanticInvalidForJsonSchema:
                # Parameters that JSON cannot describe are checked by pydantic alone.
                params = {"type": "object"}
            written = {"enum": [entry.name, f"{entry.name}@{entry.revision}"]}  # by hand, or by a program
            properties = {"name": written, "params": {**params, "description": entry.summary}}
            bare: dict[str, Any] = {**written, "description": entry.summary}
            required = ["name", "params"] if params.get("required") else ["name"]
            full = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
            names += [full] if params.get("required") else [bare, full]
        return {"anyOf": names, "title": cls.kind}


class BackboneRef(Ref):
    kind = "backbone"


class AlignmentRef(Ref):
    kind = "alignment"


class FusionRef(Ref):
    kind = "fusion"


class HeadRef(Ref):
    kind = "head"


R = TypeVar("R", bound=Ref)


class PerModality(Generic[R]):
    """One component for every modality, or a mapping from modality to component.

    ``backbone: convnext_tiny`` is short for the same backbone, in separate copies, for all modalities;
    ``backbone: {palm: acme/gabor, vein: convnext_tiny}`` gives each its own.
    """

    def __init__(self, refs: Mapping[str, R]) -> None:
        self._refs = dict(refs)

    def __getitem__(self, modality: str) -> R:
        return self._refs[EVERY] if EVERY in self._refs else self._refs[modality]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PerModality) and self._refs == other._refs

    def __hash__(self) -> int:
        return hash(tuple(self._refs))

    def __repr__(self) -> str:
        return f"PerModality({self._refs!r})"

    @property
    def modalities(self) -> frozenset[str] | None:
        """The modalities that are named, or ``None`` if one component serves all."""
        return self.named(self._refs)

    @staticmethod
    def named(data: Any) -> frozenset[str] | None:
        """The same of plain data."""
        shared = not isinstance(data, Mapping) or {"name", "params", EVERY} & set(data)
        return None if shared else frozenset(map(str, data))

    @property
    def same(self) -> bool:
        """Whether all modalities have the same component with the same parameters."""
        return len(set(map(repr, self._refs.values()))) == 1

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        (ref_type,) = source.__args__
        refs = core_schema.dict_schema(core_schema.str_schema(), handler.generate_schema(ref_type))

        def spread(data: Any) -> Any:
            if isinstance(data, PerModality):
                return data._refs
            return {EVERY: data} if cls.named(data) is None else data

        def dump(value: PerModality[Any]) -> Any:
            plain = {modality: ref.model_dump(mode="json") for modality, ref in value._refs.items()}
            return plain.get(EVERY, plain)

        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.no_info_before_validator_function(spread, refs),
            serialization=core_schema.plain_serializer_function_ser_schema(dump),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        refs = handler(schema)
        return {"anyOf": [refs["additionalProperties"], refs]}
