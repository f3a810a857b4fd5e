"""Parameters of layouts and protocols: checked, with an error that names the one that does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from ..errors import DataError, did_you_mean
from ..registry import Params

P = TypeVar("P", bound=Params)


def checked(owner: str, model: type[P], values: Mapping[str, Any] | None, where_listed: str) -> P:
    """Checks parameters.

    Args:
        owner: Whose they are, for messages: ``"layout 'tongji'"``.
        model: What they must be.
        values: As given.
        where_listed: The command that lists them.

    Raises:
        DataError: Naming the first parameter that does not fit, and why.
    """
    try:
        return model.model_validate(dict(values or {}))
    except ValidationError as error:
        fault = error.errors()[0]
        where = str(fault["loc"][0]) if fault["loc"] else "parameters"
        unknown = fault["type"] == "extra_forbidden"
        hint = did_you_mean(where, model.model_fields) if unknown else ""
        message = "no such parameter" if unknown else fault["msg"]
        raise DataError(f"{owner}: {where}: {message}{hint}; {where_listed!r} lists them") from error
