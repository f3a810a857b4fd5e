"""Layouts of data sets, one class each; registered by name in :mod:`pvzoo.data`.

A layout of one's own subclasses :class:`PatternAdapter`: a regular expression of the paths, and what its groups mean.
"""

from ..table import MODALITIES, Record, Table
from .base import UNNUMBERED, UNUSED, Adapter, Expected, PatternAdapter, Unused, open_layout

__all__ = [
    "MODALITIES",
    "UNNUMBERED",
    "UNUSED",
    "Adapter",
    "Expected",
    "PatternAdapter",
    "Record",
    "Table",
    "Unused",
    "open_layout",
]
