"""pvzoo: a model zoo for palm biometrics (palmprint and palm vein, alone and fused).

Everything public is imported from here, on first use: ``import pvzoo`` loads neither torch nor numpy.

Example:
    >>> import pvzoo
    >>> model = pvzoo.create("stage2_spatial")
    >>> palm, vein = model.preprocess("palm.png"), model.preprocess("vein.png")
    >>> logits, embedding, details = model(palm, vein)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .catalog import list_components as list_components
    from .catalog import list_models as list_models
    from .catalog import spec as spec
    from .errors import BuildError as BuildError
    from .errors import DataError as DataError
    from .errors import EvaluationError as EvaluationError
    from .errors import HubError as HubError
    from .errors import ImageError as ImageError
    from .errors import InputError as InputError
    from .errors import IntegrityError as IntegrityError
    from .errors import MissingModalityError as MissingModalityError
    from .errors import PairsError as PairsError
    from .errors import PluginError as PluginError
    from .errors import PvzooError as PvzooError
    from .errors import RegistrationError as RegistrationError
    from .errors import SpecError as SpecError
    from .errors import UnknownNameError as UnknownNameError
    from .errors import WeightsError as WeightsError
    from .factory import create as create
    from .factory import load as load
    from .fusion.base import Fused as Fused
    from .hookspecs import Register as Register
    from .hookspecs import hookimpl as hookimpl
    from .model import Model as Model
    from .model import Output as Output
    from .registry import Params as Params
    from .shapes import BackboneShape as BackboneShape
    from .shapes import Level as Level
    from .shapes import Shape as Shape
    from .specs import ModelSpec as ModelSpec
    from .threshold import Decision as Decision
    from .threshold import Threshold as Threshold
    from .training.run import train as train
    from .weights import LoadReport as LoadReport

_HOME = {
    "BackboneShape": "shapes",
    "BuildError": "errors",
    "DataError": "errors",
    "Decision": "threshold",
    "EvaluationError": "errors",
    "Fused": "fusion.base",
    "HubError": "errors",
    "ImageError": "errors",
    "InputError": "errors",
    "IntegrityError": "errors",
    "Level": "shapes",
    "LoadReport": "weights",
    "MissingModalityError": "errors",
    "Model": "model",
    "ModelSpec": "specs",
    "Output": "model",
    "PairsError": "errors",
    "Params": "registry",
    "PluginError": "errors",
    "PvzooError": "errors",
    "Register": "hookspecs",
    "RegistrationError": "errors",
    "Shape": "shapes",
    "SpecError": "errors",
    "Threshold": "threshold",
    "UnknownNameError": "errors",
    "WeightsError": "errors",
    "create": "factory",
    "hookimpl": "hookspecs",
    "list_components": "catalog",
    "list_models": "catalog",
    "load": "factory",
    "spec": "catalog",
    "train": "training.run",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pvzoo' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
