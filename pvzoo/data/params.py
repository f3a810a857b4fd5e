"""Parameters of layouts and protocols: checked, with an error that names each that does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from ..errors import DataError
from ..registry import Params
from ..specs.fields import explain

P = TypeVar("P", bound=Params)


def checked(owner: str, model: type[P], values: Mapping[str, Any] | None) -> P:
    """Checks parameters.

    Args:
        owner: Whose they are, for messages: ``"layout 'tongji'"``.
        model: What they must be.
        values: As given.

    Raises:
        DataError: A line for each parameter that does not fit: what is wrong, and what may have been meant.
    """
    try:
        return model.model_validate(dict(values or {}))
    except ValidationError as error:
        faults = [
            ": ".join([owner, *filter(None, [".".join(map(str, path))]), message])
            for path, message in explain(error, model)
        ]
        raise DataError("\n".join(faults)) from error
