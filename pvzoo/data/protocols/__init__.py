"""Protocols by name: how a data set is split, and what is compared with what.

Published results under one name differ by two orders of magnitude, because the name covers several protocols. Here a
name, its parameters and a table give one split, whatever the order of the files. Every split carves its dev part out
of the training side, and one that leaks is refused.

*Closed set*: every identity trains with some of its samples and is tested with others. *Open set*: the identities that
are tested are not those that train.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from ...errors import DataError, UnknownNameError, nearest
from ..params import checked
from .base import Protocol as Protocol
from .base import ProtocolParams as ProtocolParams
from .closed import ClosedFirstK, ClosedMixed, ClosedS1S2, ClosedS2S1, FewShotK
from .listed import PairList
from .opened import CrossDataset, Open1To3, OpenHalf, OpenSubject

PROTOCOLS: Mapping[str, type[Protocol[Any]]] = {
    protocol.name: protocol
    for protocol in (
        ClosedS1S2,
        ClosedS2S1,
        ClosedFirstK,
        ClosedMixed,
        OpenHalf,
        Open1To3,
        OpenSubject,
        FewShotK,
        CrossDataset,
        PairList,
    )
}


def open_protocol(name: str, params: Mapping[str, Any] | None = None) -> Protocol[Any]:
    """Returns a protocol.

    Args:
        name: Such as ``"open_subject"``.
        params: Its parameters.

    Raises:
        UnknownNameError: There is no such protocol; with a suggestion.
        DataError: If the parameters do not fit.
    """
    if name not in PROTOCOLS:
        near = nearest(name, PROTOCOLS)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(PROTOCOLS)}"
        message = f"no protocol named {name!r}; {hint}"
        raise UnknownNameError(message, kind="protocol", name=name, suggestions=[near] if near else [])
    protocol = PROTOCOLS[name]
    return protocol(checked(f"protocol {name!r}", protocol.params_type, params))


def read_protocol(text: str) -> Protocol[Any]:
    """The protocol that :attr:`Split.protocol` names: ``"open_subject(fold=1, ...)"``, or its name alone.

    Raises:
        UnknownNameError: There is no such protocol; with a suggestion.
        DataError: If the text is no protocol, or the parameters do not fit.
    """
    found = re.fullmatch(r"(\w+)(?:\((.*)\))?", text.strip())
    pairs = [part.partition("=") for part in re.split(r", (?=\w+=)", found[2])] if found and found[2] else []
    if found is None or not all(equals for _, equals, _ in pairs):
        raise DataError(f"{text!r} is no protocol; it is written as name(parameter=value, ...)")
    values = {name: None if value == "None" else yaml.safe_load(value) for name, _, value in pairs}
    return open_protocol(found[1], values)
