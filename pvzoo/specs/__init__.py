"""What a model is, as checked data (no torch): the spec, its source file, its shapes and its JSON Schema."""

from .geometry import Geometry
from .model import Branch, Embedding, ModelSpec, Preprocessing, load_spec
from .schema import json_schema
from .source import Source, names_file

__all__ = [
    "Branch",
    "Embedding",
    "Geometry",
    "ModelSpec",
    "Preprocessing",
    "Source",
    "json_schema",
    "load_spec",
    "names_file",
]
