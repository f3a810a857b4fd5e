"""Parameters of data and augmentation; those of layouts and protocols, checked with an error that names each fault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from ..errors import DataError
from ..registry import Params
from ..specs.fields import Section, explain

P = TypeVar("P", bound=Params)


class Data(Section):
    """Where images come from, and how they are split."""

    source: str = Field(
        "synthpalm-v1", description="a SynthPalm release, drawn while it is read; a table; or a data set's folder"
    )
    layout: str | None = Field(None, description="layout of the folder; none for one with a table.csv")
    layout_params: dict[str, Any] = Field({}, description="parameters of the layout")
    protocol: str = Field("open_subject", description="'pvzoo data protocols' lists them")
    protocol_params: dict[str, Any] = Field({}, description="parameters of the protocol")


class AugmentParams(Params):
    """How far images are moved and changed; 0 leaves a part out. Lengths are shares of the image's side."""

    rotation: float = Field(8.0, ge=0, le=180, description="degrees, at most, either way")
    shift: float = Field(0.05, ge=0, lt=1, description="at most, along each side")
    scale: float = Field(0.08, ge=0, lt=1, description="larger or smaller by this share, at most")
    shear: float = Field(3.0, ge=0, lt=45, description="degrees, at most, either way")
    bend: float = Field(0.01, ge=0, lt=0.5, description="standard deviation of a smooth elastic displacement")
    brightness: float = Field(0.2, ge=0, lt=1, description="brighter or darker by this share, at most")
    contrast: float = Field(0.2, ge=0, lt=1, description="more or less contrast by this share, at most")
    gamma: float = Field(0.2, ge=0, lt=1, description="exponent of 1 - gamma to 1 / (1 - gamma)")
    blur: float = Field(1.0, ge=0, le=16, description="largest sigma in pixels, in half of the images")
    noise: float = Field(0.02, ge=0, lt=1, description="standard deviation, of pixels in [0, 1], in half of the images")
    erase: float = Field(0.05, ge=0, lt=1, description="largest share of a grey box, in a quarter of the images")

    def scaled(self, share: float) -> AugmentParams:
        """All of it by a share of its extent."""
        return self.model_copy(update={name: share * value for name, value in self})


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
