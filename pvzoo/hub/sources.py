"""From ``model.tag`` to files that are known to be the right ones: each weight source is asked in turn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.version import Version

from .. import __version__, catalog
from ..errors import HubError, IntegrityError, PvzooError, WeightsError, did_you_mean
from ..manifest import Weights
from ..plugins import host
from ..registry import WeightSource
from ..weights import Files, files_in
from ..zoo import Access
from . import digests
from .digests import Pin


class HubSource:
    """Whatever a manifest lists, pvzoo's own or a package's: in the cache of the Hugging Face Hub, or on the Hub."""

    def __init__(self, access: Access) -> None:
        self.access = access

    def find(self, name: str, tag: str | None) -> Files | None:
        from . import download  # huggingface_hub, which packages of weights do without

        pinned = catalog.weights(f"{name}.{tag}")
        return None if pinned is None else download.published(pinned, self.access)


def repository(name: str, revision: str | None, access: Access) -> Files:
    """The files behind ``"hf-hub:namespace/name"``, perhaps with ``@revision``.

    Raises:
        PvzooError: If two revisions are named; else as :func:`pvzoo.hub.download.repository`.
    """
    from . import download

    repo, _, behind = name.removeprefix("hf-hub:").partition("@")
    if revision is not None and behind not in ("", revision):
        raise PvzooError(f"{name!r} names a revision, and revision={revision!r} names another")
    return download.repository(repo, revision or behind or None, access)


def find(name: str, tag: str | None, access: Access) -> Files:
    """Finds the weights of a zoo model.

    Args:
        name: Of the model.
        tag: Of the weights; its default if left out.
        access: Whether and how a network may be used.

    Raises:
        WeightsError: If there are none, or they need a newer pvzoo; says which there are.
        IntegrityError: If a file is not the one that the manifest pins.
        HubError: If they are on the Hub alone, and cannot be had from there.
    """
    known = catalog.tags(name)
    tag = tag or next(iter(known), None)
    pinned = catalog.weights(f"{name}.{tag}")
    if pinned is not None:
        _check_version(f"{name}.{tag}", pinned)
    for entry in catalog.weight_sources():
        try:
            files = ask(entry, name, tag, access)
        except HubError as error:
            raise type(error)(f"{error}{_package(f'{name}.{tag}')}") from error
        if files is not None:
            return files if pinned is None else check(files, pinned, f"{name}.{tag} from {entry.label}")
    wanted = f"{name}.{tag}" if tag else name
    if known:
        hint = did_you_mean(tag or "", known) or f"; it has {', '.join(known)}"
    else:
        hint = "; pvzoo.list_models(pretrained=True) lists those that installed sources provide"
    raise WeightsError(f"there are no pretrained weights for {wanted}{hint}")


def ask(entry: WeightSource, name: str, tag: str | None, access: Access) -> Files | None:
    """What one source has.

    Raises:
        WeightsError: If it fails, or gives something that is neither folder nor files.
    """
    options = {field: getattr(access, field) for field in Access.model_fields if field in entry.params.model_fields}
    source = entry.create(entry.params(**options))
    try:
        found: Any = source.find(name, tag)
    except PvzooError:
        raise
    except (Exception, SystemExit) as error:
        message = f"{entry.label} failed to find {name}: {type(error).__name__}: {error}"
        raise WeightsError(message) from error
    if found is None:
        return None
    if isinstance(found, Mapping):
        return {file: Path(path) for file, path in found.items()}
    if isinstance(found, str | Path):
        return files_in(Path(found))
    raise WeightsError(f"{entry.label} gave {type(found).__name__} for {name}, and not a folder or its files by name")


def check(files: Files, pinned: Weights, what: str, *, anew: bool = False) -> Files:
    """Those of the files that the manifest lists, checked against it.

    Args:
        files: By name.
        pinned: The manifest's entry.
        what: What they are and where they are from, for errors.
        anew: Hash them although they were found right before.

    Raises:
        IntegrityError: If one is missing or another.
    """
    for name, file in pinned.files.items():
        place = files.get(name)
        flaw = digests.fault(place, Pin.of(file), anew=anew) if place and place.is_file() else "is missing"
        if flaw:
            message = f"{what}: {place or name} {flaw}"
            raise IntegrityError(f"{message}; install it again, in the version that belongs to this pvzoo")
    return {name: files[name] for name in pinned.files}


def _package(name: str) -> str:
    """The way without a network, for weights of pvzoo's own."""
    if name not in catalog.pinned(own=True):
        return ""
    package = "pvzoo-weights-nano" if catalog.split_tag(name)[0].endswith("_nano") else "pvzoo-weights"
    for plugin in host().plugins:
        if plugin.distribution == package and plugin.state != "loaded":
            return f"; {package} is installed and {plugin.state}: 'pvzoo plugins show {plugin.vendor}' says why"
    return f"; or 'pip install {package}' brings it ('pip install ./plugins/{package}' in a clone of pvzoo)"


def _check_version(name: str, pinned: Weights) -> None:
    if Version(__version__) < Version(pinned.pvzoo):
        needs = f"needs pvzoo {pinned.pvzoo} or newer, and this is {__version__}"
        raise WeightsError(f"{name} {needs}: pip install -U 'pvzoo>={pinned.pvzoo}'")
