"""Sending a model to the Hub: one commit of all its files on the head that was seen, then a tag."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, constants

from .. import __version__
from ..errors import HubError, WeightsError
from ..manifest import CARD, CONFIG, INDEX, WEIGHTS, Facts, File, Weights
from ..specs import Source, load_spec
from ..tensorfile import Header, read_tensors, shards
from ..weights import Files, files_in, read_files
from ..zoo import Access
from . import cards, client, digests, sources
from .download import COMMIT

T = TypeVar("T")


@dataclass(frozen=True)
class Published:
    """What is on the Hub now.

    Attributes:
        repo: The repository.
        commit: That holds the files.
        tag: Its tag, if it was given one.
        files: Sizes and digests, by name.
    """

    repo: str
    commit: str
    tag: str | None
    files: Mapping[str, File]

    @property
    def url(self) -> str:
        return f"{client.endpoint()}/{self.repo}/tree/{self.tag or self.commit}"


def push(
    folder: Path,
    repo: str,
    *,
    facts: Facts | None = None,
    private: bool = False,
    tag: str | None = None,
    token: str | bool | None = None,
) -> Published:
    """Publishes a saved folder: its config, its weights and a card, and nothing else that lies there.

    Pushing the same again changes nothing, and goes on where a push was interrupted.

    Args:
        folder: As ``model.save`` wrote it.
        repo: ``"namespace/name"``; made if it does not exist.
        facts: What the card says; the README.md of the folder is sent as it is if left out.
        private: Make the repository private, if it is made.
        tag: For the commit. A tag that is there and means other files is refused.
        token: With the right to write; the one that you logged in with by default.

    Raises:
        WeightsError: Weights are not finite, or the card lacks licence, data or intended use; nothing was sent.
        HubError: The Hub refuses or cannot be reached, or somebody else changed the repository meanwhile.
    """
    files = _model_files(files_in(folder), str(folder))
    saved, header = read_files(files, str(folder))
    _check_values(header)
    source = f"hf-hub:{repo}" + (f"@{tag}" if tag else "")
    text = _card(folder / CARD) if facts is None else _rendered(saved, header, facts, source)
    lacks = cards.faults(text)
    if lacks:
        message = f"{folder / CARD}: cannot be published: {'; '.join(lacks)}"
        raise WeightsError(f"{message}. Write it into the card, or give facts (pvzoo push --facts FILE)")
    hub = _hub(repo, token)
    hub.create(private)
    return _send(files, text, hub, tag=tag)


def publish(name: str, weights: Weights, *, private: bool = False, token: str | bool | None = None) -> Published:
    """Publishes an entry of the manifest from what is installed or cached: its files, and a card made from its facts.

    What is there already, under the tag or commit that the manifest names, is left as it is, its card included.

    Raises:
        WeightsError: The files are not on this machine.
        IntegrityError: They are not those that the manifest pins.
        HubError: As for :func:`push`.
    """
    model, _, tag = name.partition(".")
    files = sources.find(model, tag, Access(offline=True))
    saved, header = read_files(files, name)
    _check_values(header)
    hub = _hub(weights.repo, token)
    hub.create(private)
    is_commit = COMMIT.fullmatch(weights.revision) is not None
    there = weights.revision if is_commit else hub.tags().get(weights.revision)
    if there and hub.holds(files, there):
        return Published(weights.repo, there, None if is_commit else weights.revision, weights.files)
    if is_commit:
        raise HubError(
            f"{weights.repo}: commit {there} has other files than {name}; the manifest pins another repository"
        )
    text = _rendered(saved, header, weights.facts(), f"hf-hub:{weights.repo}@{weights.revision}")
    return _send(files, text, hub, tag=weights.revision)


def _model_files(files: Files, where: str) -> Files:
    """The config and the weights, in one file or several."""
    several = INDEX in files and WEIGHTS not in files
    names = [CONFIG, INDEX, *shards(files[INDEX])] if several else [CONFIG, WEIGHTS]
    for name in names:
        if name not in files:
            raise WeightsError(f"{where}: there is no {name} in it")
    return {name: files[name] for name in names}


def _check_values(header: Header) -> None:
    for name, tensor in read_tensors(header, header.tensors).items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{header.path}: {name} holds NaN or infinite values; nothing was sent")


def _card(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path}: cannot be read: {error}; a model is published with a card") from error


def _rendered(saved: dict[str, Any], header: Header, facts: Facts, source: str) -> str:
    return cards.render(load_spec(Source(CONFIG, saved)), header.about, facts, source)


def _hub(repo: str, token: str | bool | None) -> _Hub:
    return _Hub(HfApi(client.endpoint(), token, library_name="pvzoo", library_version=__version__), repo)


def _send(files: Files, card: str, hub: _Hub, *, tag: str | None) -> Published:
    content: dict[str, Path | bytes] = {**files, CARD: card.encode()}
    tagged = hub.tags().get(tag) if tag else None
    if tagged and not hub.holds(content, tagged):
        message = f"{hub.repo} has a tag {tag} of other files; a tag of weights is never moved: choose another"
        raise HubError(message)
    commit = tagged or hub.commit(content, f"Weights and card, pvzoo {__version__}")
    if tag and not tagged:
        hub.tag(tag, commit)
    described = {name: File(size=path.stat().st_size, sha256=digests.sha256(path)) for name, path in files.items()}
    return Published(hub.repo, commit, tag, described)


@dataclass(frozen=True)
class _Hub:
    """One repository, for writing."""

    api: HfApi
    repo: str

    def _ask(self, call: Callable[[], T], doing: str = "cannot be read") -> T:
        return client.request(call, f"{self.repo} {doing}", self.repo)

    def create(self, private: bool) -> None:
        doing = "cannot be made"
        self._ask(lambda: self.api.create_repo(self.repo, private=private, exist_ok=True), doing)

    def _info(self, revision: str | None = None) -> ModelInfo:
        # Of the calls here, the only one that takes a time limit; the others have none.
        limit = constants.HF_HUB_DOWNLOAD_TIMEOUT
        return self._ask(lambda: self.api.model_info(self.repo, revision=revision, timeout=limit))

    def head(self) -> str:
        return str(self._info().sha)

    def tags(self) -> dict[str, str]:
        refs = self._ask(lambda: self.api.list_repo_refs(self.repo))
        return {ref.name: ref.target_commit for ref in refs.tags}

    def holds(self, content: Mapping[str, Path | bytes], commit: str) -> bool:
        """Whether a commit has these files, by the digests that the Hub names."""
        there = self._ask(lambda: self.api.get_paths_info(self.repo, list(content), revision=commit))
        found = {each.path: each for each in there}
        return all(name in found and _same(found[name], data) for name, data in content.items())

    def commit(self, content: Mapping[str, Path | bytes], message: str) -> str:
        """Makes the commit, once. A reply that was lost is not a commit that failed: the head tells."""
        before = self.head()
        stale = self._stale(content, before)
        if not stale and self.holds(content, before):
            return before
        failure: client.Trouble | None = None
        for _ in client.attempts():
            if failure and (now := self.head()) != before:
                if self.holds(content, now):
                    return now
                what = f"{self.repo} was changed by somebody else meanwhile, and nothing was sent"
                raise HubError(f"{what}; look at it, then push again") from failure.error.__cause__
            operations: list[Any] = [CommitOperationDelete(name) for name in stale]
            for name, data in content.items():
                operations.append(CommitOperationAdd(name, data if isinstance(data, bytes) else str(data)))
            try:
                return self.api.create_commit(self.repo, operations, commit_message=message, parent_commit=before).oid
            except Exception as error:
                failure = client.trouble(error, f"{self.repo} cannot be written", self.repo)
                failure.error.__cause__ = error
                if not failure.again and not client.is_conflict(error):
                    break
        assert failure is not None
        raise failure.error

    def _stale(self, content: Mapping[str, Path | bytes], commit: str) -> list[str]:
        """Weights of an earlier push in more or fewer files, which would be taken for part of these."""
        files = self._info(commit).siblings or []
        names = [each.rfilename for each in files if each.rfilename not in content]
        return [name for name in names if "/" not in name and (name == INDEX or name.endswith(".safetensors"))]

    def tag(self, tag: str, commit: str) -> None:
        def call() -> None:
            if self.tags().get(tag) != commit:  # a reply may have been lost here, too
                self.api.create_tag(self.repo, tag=tag, revision=commit)

        self._ask(call, f"has the files, and the tag {tag} cannot be made")


def _same(there: Any, data: Path | bytes) -> bool:
    lfs = getattr(there, "lfs", None)
    if lfs is None:
        return bool(there.blob_id == digests.git_id(data if isinstance(data, bytes) else data.read_bytes()))
    return not isinstance(data, bytes) and bool(lfs.sha256 == digests.sha256(data))
