"""huggingface_hub, and its errors in words: what happened, whether to try again, and what to do.

Not all of its exceptions are its own: its HTTP library's come through, and that is httpx or httpx2 by its version.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from huggingface_hub import constants
from huggingface_hub import errors as theirs

from ..errors import HubError, PvzooError

PATIENCE = 40.0
"""Seconds from the first failure on in which a request is tried again; a download that moves is never cut.

What hung until its time limit counts from its first try on, since nothing moved in that time.
"""
_LONGEST_WAIT = 8.0

_HTTP_ERROR = next(base for base in theirs.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_ANSWER = (json.JSONDecodeError, UnicodeDecodeError, KeyError)
"""What huggingface_hub stumbles with over an answer that no Hub gives."""
_ADDRESS = re.compile(r"https?://[^/\s:?#][^\s?#]*", re.IGNORECASE)
_OS_ERROR = re.compile(r"\(os error (\d+)\)")

T = TypeVar("T")


class UnreachableError(HubError):
    """The Hub does not answer, or not for now."""


class MissingFileError(HubError):
    """The repository is there, and a file is not in it."""


def endpoint() -> str:
    """The Hub's address: ``HF_ENDPOINT``, or huggingface.co.

    Raises:
        HubError: If it is no address of the web.
    """
    address: str = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    if not _ADDRESS.fullmatch(address):
        raise HubError(f"HF_ENDPOINT is {address!r}, which is no address; write it as https://huggingface.co")
    return address.rstrip("/")


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids the network."""
    return bool(constants.HF_HUB_OFFLINE)


@dataclass(frozen=True)
class Trouble:
    """A failure of a request.

    Attributes:
        error: What to raise.
        again: Whether the same request may succeed later.
        hung: Whether there was no answer within the time limit of the request.
    """

    error: HubError
    again: bool = False
    hung: bool = False


def trouble(error: Exception, what: str, repo: str, revision: str | None = None) -> Trouble:
    """Explains a failure of huggingface_hub.

    Args:
        error: What it raised.
        what: What was being done, ``"acme/palm: model.safetensors cannot be fetched"``.
        repo: The repository.
        revision: The branch, tag or commit.
    """
    cause = _root(error)
    response = getattr(cause, "response", None)
    status = getattr(response, "status_code", None)
    where = endpoint()
    if isinstance(cause, theirs.GatedRepoError):
        advice = f"ask for access on {where}/{repo}, then set HF_TOKEN or give token="
        return Trouble(HubError(f"{what}: {repo} is gated, and access was not granted; {advice}"))
    if isinstance(cause, theirs.RepositoryNotFoundError):
        advice = "check the name; for a private one set HF_TOKEN or give token="
        return Trouble(HubError(f"{what}: {where} has no repository {repo}, or the token may not see it; {advice}"))
    if isinstance(cause, theirs.RevisionNotFoundError):
        return Trouble(HubError(f"{what}: {repo} has no branch, tag or commit {revision!r}"))
    if isinstance(cause, theirs.EntryNotFoundError) and not isinstance(cause, theirs.LocalEntryNotFoundError):
        return Trouble(MissingFileError(f"{what}: there is no such file at {revision or 'main'}"))
    if isinstance(cause, theirs.OfflineModeIsEnabled):
        return Trouble(HubError(f"{what}: HF_HUB_OFFLINE is set; unset it to use the network"))
    if isinstance(cause, theirs.HFValidationError):
        return Trouble(HubError(f"{what}: {repo!r} cannot be a repository; write namespace/name"))
    if status == 404:
        return Trouble(not_a_hub(what, "answers 404 as no Hub does"))
    if status == 407 or (type(cause).__name__ == "ProxyError" and "407" in str(cause)):
        advice = f"write it as {where.partition(':')[0].upper()}_PROXY=http://NAME:PASSWORD@HOST:PORT"
        return Trouble(HubError(f"{what}: the proxy on the way to {where} wants a login; {advice}"))
    if status in (401, 403):
        elsewhere = f"{where}/" not in str(getattr(response, "url", f"{where}/"))  # a signed address that has expired
        if "html" in getattr(response, "headers", {}).get("Content-Type", "") and not elsewhere:
            return Trouble(not_a_hub(what, f"answers {status} with a page, as no Hub does"))
        said = getattr(cause, "server_message", None) or f"it answered {status}"
        return Trouble(HubError(f"{what}: {where} refuses ({said}); check the token and its rights"), elsewhere)
    if status is not None:
        message = f"{what}: {where} answered {status}; try again later"
        again = status in (408, 429) or status >= 500
        return Trouble(UnreachableError(message) if again else HubError(message), again)
    number = _error_number(cause)
    if number in _NO_ROOM:
        return Trouble(HubError(f"{what}: {cause}; make room, or choose another place with HF_HOME or cache_dir="))
    if number in _NOT_ALLOWED:
        return Trouble(HubError(f"{what}: {cause}; choose another place with HF_HOME or cache_dir="))
    if isinstance(cause, _NO_ANSWER):
        return Trouble(not_a_hub(what, f"answers as no Hub does ({type(cause).__name__}: {cause})"))
    if isinstance(cause, _HTTP_ERROR | OSError | RuntimeError):
        said = f"{type(cause).__name__}: {str(cause).splitlines()[0]}" if str(cause) else type(cause).__name__
        message = f"{what}: no connection to {where} that holds ({said}); check the network, or HF_ENDPOINT"
        return Trouble(UnreachableError(message), True, hung="Timeout" in type(cause).__name__)
    return Trouble(HubError(f"{what}: {type(cause).__name__}: {cause}"))


def _error_number(cause: Exception) -> int | None:
    """That of the system. hf_xet, which is Rust, has it in the text of a RuntimeError alone."""
    found = _OS_ERROR.search(str(cause)) if isinstance(cause, RuntimeError) else None
    return int(found[1]) if found else getattr(cause, "errno", None)


def is_conflict(error: Exception) -> bool:
    """Whether a commit was refused because its parent is no longer the head."""
    return getattr(getattr(error, "response", None), "status_code", None) == 412


def not_a_hub(what: str, how: str) -> HubError:
    """The error of an address at which there is something else."""
    return HubError(f"{what}: {endpoint()} {how}; HF_ENDPOINT, a proxy or a firewall may lead elsewhere")


def _root(error: Exception) -> Exception:
    """What lies behind "not found in the cache either"."""
    cause = error.__cause__
    return cause if isinstance(error, theirs.LocalEntryNotFoundError) and isinstance(cause, Exception) else error


def attempts(*, patient: bool = True) -> Iterator[None]:
    """Gives a turn now, and after each failure another, with longer and longer pauses, until patience ends.

    Whoever iterates leaves the loop after a success, and raises the last failure behind it.
    """
    yield
    started, wait = time.monotonic(), 1.0
    while patient and (rest := started + PATIENCE - time.monotonic()) > 0:
        time.sleep(min(wait, rest))
        wait = min(2 * wait, _LONGEST_WAIT)
        yield


def request(call: Callable[[], T], what: str, repo: str, revision: str | None = None, *, patient: bool = True) -> T:
    """Calls something that may be called twice, and again while that may help.

    Raises:
        HubError: What :func:`trouble` makes of the last failure.
    """
    failure: Trouble | None = None
    begun = time.monotonic()
    for _ in attempts(patient=patient):
        try:
            return call()
        except PvzooError:
            raise
        except Exception as error:
            failure = trouble(error, what, repo, revision)
            failure.error.__cause__ = error
            if not failure.again or (failure.hung and time.monotonic() - begun > PATIENCE):
                break
    assert failure is not None
    raise failure.error
