"""Files of a repository on the Hub, in the cache of huggingface_hub: from there first, checked in either case."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, HFValidationError

from .. import __version__
from ..errors import HubError, IntegrityError, PvzooError, WeightsError
from ..manifest import CONFIG, INDEX, WEIGHTS, Weights
from ..tensorfile import replacing, shards
from ..weights import Files
from ..zoo import Access
from . import client, digests
from .client import MissingFileError
from .digests import Pin

COMMIT = re.compile(r"[0-9a-f]{40}")
_PLAIN = re.compile(r"[\w-]+")


def published(weights: Weights, access: Access) -> Files:
    """The files of an entry of the manifest, each with the digest that is pinned there.

    Raises:
        HubError: If one is not on this machine and cannot be fetched.
        IntegrityError: If the Hub gives another file.
    """
    return {
        name: fetch(weights.repo, name, weights.revision, access, Pin.of(file)) for name, file in weights.files.items()
    }


def repository(repo: str, revision: str | None, access: Access) -> Files:
    """The files of a model in any repository, all of one commit.

    No digest is pinned, so each file is checked against the one that the Hub names for it. A branch or tag is looked
    up each time, once for all files; if the Hub does not answer, or no longer does before all of them are here, the
    last commit that was had whole is taken from the cache.

    Raises:
        HubError: If there is no such repository or revision, or it cannot be reached.
        WeightsError: If there is no model of pvzoo in it.
        IntegrityError: If the Hub gives a file with another digest than it names.
    """
    wanted = revision or constants.DEFAULT_REVISION
    if COMMIT.fullmatch(wanted) or _is_offline(access):
        return _whole(repo, wanted, access, wanted)
    last = cached(repo, CONFIG, wanted, access)
    try:
        files = _whole(repo, _commit(repo, wanted, access, patient=last is None), access, wanted)
    except client.UnreachableError:
        with suppress(PvzooError):
            return _whole(repo, wanted, access.model_copy(update={"offline": True}), wanted)
        raise
    if files[CONFIG] != last:
        _remember(files[CONFIG], wanted)
    return files


def _whole(repo: str, revision: str, access: Access, wanted: str) -> Files:
    """The files of a revision, which an error calls as it was asked for."""
    try:
        config = fetch(repo, CONFIG, revision, access)
    except MissingFileError as error:
        raise _no_model(repo, wanted, CONFIG) from error
    commit = config.parent.name
    # Where the index alone was had before, there is no single file, and nobody needs to be asked for it.
    if cached(repo, WEIGHTS, commit, access) or not cached(repo, INDEX, commit, access):
        with suppress(MissingFileError):
            return {CONFIG: config, WEIGHTS: fetch(repo, WEIGHTS, commit, access)}
    try:
        index = fetch(repo, INDEX, commit, access)
        return {CONFIG: config, INDEX: index, **{name: fetch(repo, name, commit, access) for name in shards(index)}}
    except MissingFileError as error:
        raise _no_model(repo, wanted, WEIGHTS) from error


def _commit(repo: str, revision: str, access: Access, *, patient: bool) -> str:
    """What a branch or tag is now."""
    what = f"{repo}: {CONFIG} cannot be fetched"
    try:
        commit, _ = client.request(
            lambda: _announced(what, repo, CONFIG, revision, access), what, repo, revision, patient=patient
        )
    except MissingFileError as error:
        raise _no_model(repo, revision, CONFIG) from error
    return commit


def _remember(config: Path, revision: str) -> None:
    """Notes in the cache which commit a branch or tag was, as huggingface_hub does.

    It does so before the first file is there, and who is offline after a fetch that broke off then finds a part of a
    commit in place of the whole one before. So files are fetched by commit, of which it notes nothing.
    """
    ref = config.parents[2] / "refs" / revision
    with suppress(OSError):  # of a cache that cannot be written, in which the files were before
        ref.parent.mkdir(parents=True, exist_ok=True)
        with replacing(ref) as new:
            new.write_text(config.parent.name, encoding="utf-8")


def _no_model(repo: str, revision: str, name: str) -> WeightsError:
    message = f"{repo} has no {name} at {revision}"
    return WeightsError(f"{message}; it is not a model that 'pvzoo push' or model.push_to_hub wrote")


def fetch(repo: str, name: str, revision: str, access: Access, pin: Pin | None = None) -> Path:
    """One file: from the cache if it is there and right, else from the Hub.

    Args:
        repo: ``"namespace/name"``.
        name: Of the file.
        revision: Branch, tag or commit.
        access: Whether and how the Hub may be asked.
        pin: What the file should be; what the Hub says of it if left out.

    Raises:
        HubError: It cannot be had; says why, and what to do.
        MissingFileError: The repository has no such file.
        IntegrityError: It is another file, also when it was fetched anew; nothing of it is left in the cache.
    """
    kept = cached(repo, name, revision, access)
    flaw = _flaw(kept, pin) if kept else ""
    if kept and not flaw:
        return kept
    if kept:
        _remove(kept)
    if _is_offline(access):
        what = f"{kept}: {flaw}, and was removed" if flaw else f"{repo}: {name} of {revision} is not in the cache"
        raise (IntegrityError if flaw else HubError)(f"{what}; without offline it is fetched from {client.endpoint()}")
    return _download(repo, name, revision, access, pin)


def _is_offline(access: Access) -> bool:
    return access.offline or client.is_offline()


def cached(repo: str, name: str, revision: str, access: Access) -> Path | None:
    """The file in the cache, unchecked; no request is made."""
    try:
        return Path(hf_hub_download(repo, name, revision=revision, cache_dir=access.cache_dir, local_files_only=True))
    except EntryNotFoundError:
        return None
    except HFValidationError as error:
        raise client.trouble(error, f"{repo}: {name} cannot be fetched", repo).error from error


def _download(repo: str, name: str, revision: str, access: Access, pin: Pin | None) -> Path:
    what = f"{repo}: {name} cannot be fetched"
    flaw = ""
    for _ in range(2):
        path, said = client.request(lambda: _fetch_once(what, repo, name, revision, access, pin), what, repo, revision)
        expected = pin or said
        flaw = digests.fault(path, expected) if expected else ""
        if not flaw:
            return path
        as_announced = pin and said and not digests.fault(path, said)
        _remove(path)
        if as_announced:  # the Hub names another digest of small files than the one that is pinned
            raise _moved(repo, name, revision, flaw)
    message = f"{repo}: {name} of {revision} {flaw}, also when it was fetched anew; nothing of it was kept"
    raise IntegrityError(f"{message}. What stands between here and {client.endpoint()} changes files")


def _fetch_once(
    what: str, repo: str, name: str, revision: str, access: Access, pin: Pin | None
) -> tuple[Path, Pin | None]:
    _, said = _announced(what, repo, name, revision, access)
    if pin and said and len(said.digest) == len(pin.digest) and said.digest != pin.digest:
        raise _moved(repo, name, revision, f"has the digest {said.digest[:16]}... and should have {pin.digest[:16]}...")
    if pin and said and None not in (pin.size, said.size) and said.size != pin.size:
        raise _moved(repo, name, revision, f"has {said.size:,} bytes and should have {pin.size:,}")
    path = hf_hub_download(
        repo,
        name,
        revision=revision,
        cache_dir=access.cache_dir,
        token=access.token,
        endpoint=client.endpoint(),
        library_name="pvzoo",
        library_version=__version__,
    )
    return Path(path), said


def _moved(repo: str, name: str, revision: str, flaw: str) -> IntegrityError:
    message = f"{repo}: {name} of {revision} {flaw} on {client.endpoint()}; nothing was kept"
    message += ". The tag was moved, or this is not the repository that was published"
    return IntegrityError(f"{message}: ask who published it, or install a package that has these weights")


def _announced(what: str, repo: str, name: str, revision: str, access: Access) -> tuple[str, Pin | None]:
    """What the Hub says of a file: its commit, and what it should be; a mirror may name no digest.

    Asked in a request of its own, that a Hub which hangs is given up in seconds and not in minutes, and that a wrong
    file is known before it is fetched.
    """
    url = hf_hub_url(repo, name, revision=revision, endpoint=client.endpoint())
    timeout = constants.HF_HUB_ETAG_TIMEOUT
    about = get_hf_file_metadata(
        url, token=access.token, timeout=timeout, library_name="pvzoo", library_version=__version__
    )
    if about.commit_hash is None or about.etag is None:
        raise client.not_a_hub(what, "does not answer as a Hub does (no X-Repo-Commit or ETag)")
    if not _PLAIN.fullmatch(about.etag):
        # huggingface_hub makes a path of it.
        raise client.not_a_hub(what, f"names a digest that is none, {about.etag!r}")
    digest = _digest(about.etag)
    return about.commit_hash, Pin(digest, about.size) if digest else None


def _flaw(path: Path, pin: Pin | None) -> str:
    """What is wrong with a file of the cache. Without a pin it is compared with the digest that the Hub gave when it
    was fetched, which is the name of the blob that its link leads to; where there are no links, nothing is known."""
    if pin is None:
        digest = _digest(path.readlink().name) if path.is_symlink() else None
        pin = Pin(digest) if digest else None
    return digests.fault(path, pin) if pin else ""


def _digest(etag: str) -> str | None:
    return etag if len(etag) in (40, 64) and set(etag) <= set("0123456789abcdef") else None


def _remove(path: Path) -> None:
    """Takes a bad file out of the cache: the link of this revision, and what it leads to."""
    chain = [path]
    while chain[-1].is_symlink():
        chain.append(chain[-1].parent / chain[-1].readlink())
    try:
        for link in chain:
            link.unlink(missing_ok=True)
    except OSError as error:
        message = f"{path}: is not the file that was published, and cannot be removed: {error.strerror or error}"
        raise IntegrityError(f"{message}; remove it, or choose another cache with HF_HOME or cache_dir=") from error
