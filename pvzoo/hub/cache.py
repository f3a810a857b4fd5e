"""What is on this machine: installed packages of weights, and models of pvzoo in the cache of the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from .. import catalog
from ..errors import PvzooError, did_you_mean, file_size
from ..manifest import CONFIG
from ..zoo import Access


@dataclass(frozen=True)
class Kept:
    """A commit of a repository in the cache.

    Attributes:
        names: The ``model.tag`` that it is, ``hf-hub:namespace/name`` if no manifest lists it; usually one.
        repo: The repository.
        commit: The commit.
        refs: Branches and tags under which it was fetched.
        size: Bytes of its files.
        path: Their folder.
    """

    names: tuple[str, ...]
    repo: str
    commit: str
    refs: tuple[str, ...]
    size: int
    path: Path


def kept(access: Access) -> list[Kept]:
    """The models of pvzoo in the cache, other repositories left out."""
    return sorted((each for each, _ in _scan(access)), key=lambda each: (each.repo, each.commit))


def remove(target: str, access: Access) -> int:
    """Removes a model from the cache.

    Args:
        target: ``model.tag``, ``hf-hub:namespace/name`` for all commits of a repository, or a commit.
        access: Where the cache is.

    Returns:
        The bytes that were freed.

    Raises:
        PvzooError: If it is not in the cache, or cannot be removed; says what is.
    """
    found = [
        (each, info) for each, info in _scan(access) if target in (*each.names, f"hf-hub:{each.repo}", each.commit)
    ]
    if not found:
        known = [name for each in kept(access) for name in each.names]
        hint = _package(target) or did_you_mean(target, known) or "; 'pvzoo weights' lists what is"
        raise PvzooError(f"{target} is not in the cache {_root(access)}{hint}")
    strategy = found[0][1].delete_revisions(*(each.commit for each, _ in found))
    freed = int(strategy.expected_freed_size)
    try:
        strategy.execute()
    except OSError as error:
        raise _stays(found[0][0].path, error.strerror or str(error)) from error
    # Of what it has no right to remove, huggingface_hub only writes a remark.
    for each, _ in found:
        if each.path.exists():
            raise _stays(each.path, file_size(freed))
    return freed


def _package(target: str) -> str:
    """How to remove weights that an installed package lists."""
    for entry in catalog.weight_sources():
        package = entry.origin.distribution
        if package and target in entry.provides:
            return f"; the installed package {package} lists it: 'pip uninstall {package}' removes that package"
    return ""


def _stays(path: Path, why: str) -> PvzooError:
    return PvzooError(f"{path}: cannot be removed ({why}); check who may write there")


def _scan(access: Access) -> Iterator[tuple[Kept, Any]]:
    try:
        info = scan_cache_dir(_root(access))
    except (CacheNotFound, ValueError):
        return
    pinned = catalog.pinned()
    for repo in info.repos:
        for revision in repo.revisions if repo.repo_type == "model" else ():
            refs = tuple(sorted(revision.refs))
            names = tuple(
                name
                for name, weights in pinned.items()
                if weights.repo == repo.repo_id and weights.revision in (revision.commit_hash, *refs)
            )
            if names or _is_ours(revision.snapshot_path / CONFIG):
                names = names or (f"hf-hub:{repo.repo_id}",)
                size, path = revision.size_on_disk, revision.snapshot_path
                yield Kept(names, repo.repo_id, revision.commit_hash, refs, size, path), info


def _root(access: Access) -> Path:
    return access.cache_dir or Path(constants.HF_HUB_CACHE)


def _is_ours(config: Path) -> bool:
    try:
        saved = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(saved, dict) and "pvzoo" in saved and "branches" in saved
