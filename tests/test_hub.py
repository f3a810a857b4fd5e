"""Weights from the Hub: the real client against a server on loopback, with everything that goes wrong on the way."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hubclient import Clock, connect, environment
from hubserver import OWNER, STRANGER, Fault, FaultKind, HubServer
from huggingface_hub import constants
from small import PALM, acme
from unprivileged import file_limit, unprivileged

import pvzoo
from pvzoo.errors import HubError, IntegrityError, PvzooError, SpecError, WeightsError, file_size
from pvzoo.hub import client, digests, packages, verify
from pvzoo.manifest import Facts, Manifest, Weights, read_manifest
from pvzoo.model import Model
from pvzoo.plugins import Host, using
from pvzoo.weights import files_in
from pvzoo.zoo import Access

NAME, TAG = "acme/palm", "made"
TAGGED = f"{NAME}.{TAG}"
REPO, SHARDED = "acme/tiny-palm", "acme/tiny-palm-in-shards"
LARGE, SMALL = "GET /cdn/model.safetensors/", "GET .*/config.json$"
PLUGINS = Path(__file__).parents[1] / "plugins"
FACTS = Facts(
    licence="Apache-2.0", data=[{"name": "nothing", "origin": "synthetic"}], intended_use="Tests of the way to the Hub."
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return made().save(tmp_path_factory.mktemp("model"))


def made(**changes: Any) -> Model:
    return pvzoo.create({**PALM, "name": NAME}, **changes)


@pytest.fixture(scope="module")
def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def entry(folder: Path) -> Weights:
    """What a manifest says of it."""
    files = {name: path for name, path in files_in(folder).items() if name != "README.md"}
    return verify.describe(files, FACTS, repo=REPO, revision="v1", build=Model)


@pytest.fixture(scope="module")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same model as packages have it, and as they publish it."""
    files = packages.shard(folder, tmp_path_factory.mktemp("shards"))
    return {name: path.read_bytes() for name, path in files.items()}


@pytest.fixture
def hub(content: dict[str, bytes], shards: dict[str, bytes]) -> Iterator[HubServer]:
    with HubServer() as server:
        server.add(REPO, content, tag="v1")
        server.add(SHARDED, shards, tag="v1")
        yield server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def clock(hub: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return connect(monkeypatch, hub.url, home)


def listing(weights: dict[str, Weights]) -> Host:
    """A plugin that is a manifest, and nothing else; the Hub that it names has the files."""
    manifest = json.loads(Manifest(weights=weights).to_json())
    return acme(build="pvzoo.hub.sources:HubSource", params=Access, manifest=manifest)


@pytest.fixture
def zoo(clock: Clock, entry: Weights) -> Iterator[Host]:
    """The model is listed as ``acme/palm.made``."""
    with using(listing({TAGGED: entry})) as host:
        yield host


def equal(model: Model, folder: Path) -> bool:
    own, saved = model.state_dict(), pvzoo.create(f"local-dir:{folder}").state_dict()
    return own.keys() == saved.keys() and all(torch.equal(own[name], saved[name]) for name in own)


def blobs(home: Path) -> list[Path]:
    """Every file with content in the cache, partial ones included."""
    return list(home.glob("hub/models--*/blobs/*"))


def refused(error: type[PvzooError], *args: Any, **arguments: Any) -> str:
    with pytest.raises(error) as caught:
        pvzoo.create(*args, **arguments)
    assert type(caught.value) in (error, *error.__subclasses__())
    return str(caught.value)


# --- any repository ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", ["main", "v1", "commit", None])
def test_a_repository_loads_by_branch_tag_or_commit(
    hub: HubServer, clock: Clock, folder: Path, content: dict[str, bytes], revision: str | None
) -> None:
    commit = hub.repos[REPO].branches["main"]
    hub.add(REPO, {"notes.txt": b"a later commit"}) if revision != "main" else None
    model = pvzoo.create(f"hf-hub:{REPO}", revision=commit if revision == "commit" else revision)
    assert equal(model, folder)
    assert not model.training
    assert hub.leaked == []


@pytest.mark.parametrize("repo", [REPO, SHARDED])
def test_what_is_in_the_cache_is_not_fetched_again(hub: HubServer, clock: Clock, folder: Path, repo: str) -> None:
    commit = hub.repos[repo].branches["main"]
    pvzoo.create(f"hf-hub:{repo}")
    hub.requests.clear()
    pvzoo.create(f"hf-hub:{repo}")
    assert hub.requests == [f"HEAD /{repo}/resolve/main/config.json"], "only whether the branch has moved"
    hub.requests.clear()
    for name, access in (("", {"offline": True}), (f"@{commit}", {}), (f"@{commit}", {"offline": True})):
        assert equal(pvzoo.create(f"hf-hub:{repo}{name}", **access), folder)
    assert hub.requests == []


def test_a_branch_that_moved_is_seen(hub: HubServer, clock: Clock, folder: Path, tmp_path: Path) -> None:
    pvzoo.create(f"hf-hub:{REPO}")
    other = made(num_classes=7).save(tmp_path / "other")
    hub.add(REPO, {path.name: path.read_bytes() for path in other.iterdir()})
    assert pvzoo.create(f"hf-hub:{REPO}").spec.num_classes == 7
    assert pvzoo.create(f"hf-hub:{REPO}@v1").spec.num_classes == 3


@pytest.mark.parametrize(
    ("repo", "match", "kind", "error"),
    [
        (REPO, LARGE, "drop", None),
        (REPO, SMALL, "status", None),
        (SHARDED, "GET /cdn/model-00002-", "drop", None),
        (REPO, LARGE, "tamper", IntegrityError),  # another model instead would hide that somebody changes files
    ],
)
def test_an_update_that_breaks_off_leaves_the_last_whole_commit(
    hub: HubServer,
    clock: Clock,
    folder: Path,
    tmp_path: Path,
    repo: str,
    match: str,
    kind: FaultKind,
    error: type[PvzooError] | None,
) -> None:
    pvzoo.create(f"hf-hub:{repo}")
    other = made(num_classes=7).save(tmp_path / "other")
    if repo == SHARDED:
        (tmp_path / "shards").mkdir()
        packages.shard(other, tmp_path / "shards")
        other = tmp_path / "shards"
    hub.add(repo, {path.name: path.read_bytes() for path in other.iterdir()})
    hub.fail(match, kind, 10**6)
    if error:
        refused(error, f"hf-hub:{repo}")
    else:
        assert equal(pvzoo.create(f"hf-hub:{repo}"), folder)
    assert equal(pvzoo.create(f"hf-hub:{repo}", offline=True), folder)
    hub.faults.clear()
    for access in ({}, {"offline": True}):
        assert pvzoo.create(f"hf-hub:{repo}", **access).spec.num_classes == 7


def test_all_files_are_of_the_commit_that_was_seen_first(hub: HubServer, clock: Clock, tmp_path: Path) -> None:
    """A branch moves while they are fetched."""
    first = hub.repos[REPO].branches["main"]
    other = made(num_classes=7).save(tmp_path / "other")
    take = hub.take

    def moves(request: str) -> Fault | None:
        fault = take(request)
        if hub.repos[REPO].branches["main"] == first and hub.count("HEAD") == 2:
            hub.add(REPO, {path.name: path.read_bytes() for path in other.iterdir()})
        return fault

    hub.take = moves  # type: ignore[method-assign]
    assert pvzoo.create(f"hf-hub:{REPO}").spec.num_classes == 3
    assert pvzoo.create(f"hf-hub:{REPO}", offline=True).spec.num_classes == 3
    assert pvzoo.create(f"hf-hub:{REPO}").spec.num_classes == 7


@pytest.mark.parametrize("traits", [{"private": True}, {"gated": True}], ids=str)
def test_a_token_opens_private_and_gated_repositories(
    hub: HubServer, clock: Clock, content: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, traits: dict[str, bool]
) -> None:
    hub.add("acme/closed", content, **traits)
    assert pvzoo.create("hf-hub:acme/closed", token=OWNER).spec.name == NAME
    monkeypatch.setenv("HF_TOKEN", OWNER)
    assert pvzoo.create("hf-hub:acme/closed").spec.name == NAME
    assert hub.leaked == [], "the place of large files is another host"


MISSING = (
    "has no repository {repo}, or the token may not see it; check the name; for a private one set HF_TOKEN or give"
)
GATED = "{repo} is gated, and access was not granted; ask for access on {url}/{repo}, then set HF_TOKEN or give token="
FOREIGN = "it is not a model that 'pvzoo push' or model.push_to_hub wrote"


@pytest.mark.parametrize(
    ("repo", "arguments", "error", "message"),
    [
        ("acme/none", {}, HubError, f"{{repo}}: config.json cannot be fetched: {{url}} {MISSING} token="),
        ("acme/private", {}, HubError, f"{{repo}}: config.json cannot be fetched: {{url}} {MISSING} token="),
        (
            "acme/private",
            {"token": STRANGER},
            HubError,
            f"{{repo}}: config.json cannot be fetched: {{url}} {MISSING} token=",
        ),
        ("acme/gated", {}, HubError, f"{{repo}}: config.json cannot be fetched: {GATED}"),
        ("acme/gated", {"token": STRANGER}, HubError, f"{{repo}}: config.json cannot be fetched: {GATED}"),
        (
            REPO,
            {"revision": "v9"},
            HubError,
            "{repo}: config.json cannot be fetched: {repo} has no branch, tag or commit 'v9'",
        ),
        (
            "a/b/c",
            {},
            HubError,
            "{repo}: config.json cannot be fetched: 'a/b/c' cannot be a repository; write namespace/name",
        ),
        (
            f"{REPO}@v1",
            {"revision": "v2"},
            PvzooError,
            "'hf-hub:{repo}' names a revision, and revision='v2' names another",
        ),
        ("acme/cards", {}, WeightsError, f"{{repo}} has no config.json at main; {FOREIGN}"),
        ("acme/bert", {}, WeightsError, f"{{repo}} has no model.safetensors at main; {FOREIGN}"),
        (REPO, {"pretrained": True}, PvzooError, "'hf-hub:{repo}' has weights of its own; leave out pretrained"),
    ],
)
def test_what_cannot_be_had_says_why(
    hub: HubServer,
    clock: Clock,
    content: dict[str, bytes],
    home: Path,
    repo: str,
    arguments: dict[str, Any],
    error: type[PvzooError],
    message: str,
) -> None:
    hub.add("acme/private", content, private=True)
    hub.add("acme/gated", content, gated=True)
    hub.add("acme/cards", {"README.md": b"# Only a card"})
    hub.add("acme/bert", {"config.json": b'{"model_type": "bert"}', "pytorch_model.bin": b"a pickle"})
    assert refused(error, f"hf-hub:{repo}", **arguments) == message.format(repo=repo, url=hub.url)
    assert clock.slept == 0, "trying again would not help"


def test_revision_goes_with_repositories_alone(zoo: Host) -> None:
    message = "revision belongs to 'hf-hub:' names; the zoo's weights are pinned by their tags"
    assert refused(PvzooError, NAME, pretrained=True, revision="v1") == message


def test_a_saved_spec_of_a_later_pvzoo_says_so(hub: HubServer, clock: Clock, folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    spec = json.loads((folder / "config.json").read_text()) | {"pvzoo": 2, "liveness": "detector"}
    about = {"pvzoo": json.dumps({"spec": spec, "pvzoo": "9.1"})}
    save_file(load_file(folder / "model.safetensors"), tmp_path / "model.safetensors", about)
    files = {
        "config.json": json.dumps(spec).encode(),
        "model.safetensors": (tmp_path / "model.safetensors").read_bytes(),
    }
    hub.add("acme/later", files)
    message = refused(SpecError, "hf-hub:acme/later")
    assert f"was saved by pvzoo 9.1, and this is {pvzoo.__version__}: pip install -U 'pvzoo>=9.1'" in message
    assert "liveness" in message


def test_a_model_of_a_plugin_that_is_not_installed_names_it(
    hub: HubServer, clock: Clock, content: dict[str, bytes]
) -> None:
    spec = json.loads(content["config.json"])
    spec["requires"] = {"palmlab": {"distribution": "pvzoo-palmlab", "version": "1.2"}}
    spec["head"] = {"name": "palmlab/soft", "revision": 1, "params": {}}
    bare = content["model.safetensors"]
    hub.add("acme/plugged", {"config.json": json.dumps(spec).encode(), "model.safetensors": without_spec(bare)})
    message = refused(SpecError, "hf-hub:acme/plugged")
    assert "needs plugin 'palmlab' from pvzoo-palmlab, which is not installed" in message
    assert message.endswith("pip install pvzoo-palmlab")


def without_spec(data: bytes) -> bytes:
    """A weights file as another library writes it."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__")
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


# --- weights of a manifest --------------------------------------------------------------------------------------------


def test_pinned_weights_are_fetched_once_and_hashed_once(
    hub: HubServer, zoo: Host, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert equal(pvzoo.create(NAME, pretrained=True), folder)
    assert hub.count(LARGE) == 1
    hub.requests.clear()
    monkeypatch.delattr(digests, "sha256")
    for pretrained in (True, TAG):
        assert equal(pvzoo.create(NAME, pretrained=pretrained), folder)
    assert equal(pvzoo.create(TAGGED, pretrained=True, offline=True), folder)
    assert hub.requests == []


@pytest.mark.parametrize("place", ["{}/file", "~nobody-of-that-name"])
def test_without_a_place_for_notes_files_are_hashed_each_time(
    zoo: Host, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PVZOO_CACHE", place.format(tmp_path))
    hashed: list[Path] = []
    whole = digests.sha256
    monkeypatch.setattr(digests, "sha256", lambda path: hashed.append(path) or whole(path))
    for _ in range(2):
        hashed.clear()
        assert equal(pvzoo.create(NAME, pretrained=True), folder)
        assert {path.name for path in hashed} == {"config.json", "model.safetensors"}


def test_a_cache_of_one_s_own(zoo: Host, hub: HubServer, home: Path, tmp_path: Path) -> None:
    pvzoo.create(NAME, pretrained=True, cache_dir=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere").is_dir()
    assert blobs(home) == []
    message = refused(HubError, NAME, pretrained=True, offline=True)
    url = hub.url
    assert message == f"{REPO}: config.json of v1 is not in the cache; without offline it is fetched from {url}"


@pytest.mark.parametrize(
    ("name", "package"), [("stage2_spatial", "pvzoo-weights"), ("stage2_spatial_nano", "pvzoo-weights-nano")]
)
def test_without_a_network_a_package_is_the_way(clock: Clock, name: str, package: str) -> None:
    with using(Host(plugins=[])):
        message = refused(HubError, name, pretrained=True, offline=True)
    way = f"; or 'pip install {package}' brings it ('pip install ./plugins/{package}' in a clone of pvzoo)"
    assert message.endswith(way)
    assert f"{name}.v1" in read_manifest(PLUGINS / package / package.replace("-", "_") / "weights.json").weights


def test_a_package_that_is_broken_is_not_to_be_installed_again(clock: Clock, site: Any) -> None:
    # Its module has a name of its own: this Python may have imported the real one.
    module = {"entry_points": "weights = broken_weights", "broken_weights": "1 / 0"}
    site.install(vendor="weights", distribution="pvzoo-weights", **module)
    with using(site.host()):
        message = refused(HubError, "stage2_spatial", pretrained=True, offline=True)
    assert message.endswith("; pvzoo-weights is installed and failed: 'pvzoo plugins show weights' says why")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cache_dir": 5}, "cache_dir: Input is not a valid path for <class 'pathlib.Path'>"),
        ({"offline": "perhaps"}, "offline: Input should be a valid boolean, unable to interpret input"),
        (
            {"token": 5},
            "token.str: Input should be a valid string; token.bool: Input should be a valid boolean, unable",
        ),
    ],
    ids=str,
)
def test_access_that_is_wrong_is_named(arguments: dict[str, Any], message: str) -> None:
    assert refused(PvzooError, NAME, pretrained=True, **arguments).startswith(message)


RECOVERED: dict[str, tuple[str, FaultKind, int, int]] = {
    "the connection breaks in the middle": (LARGE, "reset", 2, 503),
    "it ends in the middle": (LARGE, "truncate", 2, 503),
    "less is sent than was said": (LARGE, "short", 1, 503),
    "other bytes of the right number": (LARGE, "tamper", 1, 503),
    "a small file has other bytes": (SMALL, "tamper", 1, 503),
    "the large files are not to be had": (LARGE, "status", 3, 503),
    "an address has expired": (LARGE, "status", 1, 403),
    "too many requests": (LARGE, "status", 1, 429),
    "the Hub is not well": ("HEAD", "status", 4, 500),
    "the Hub breaks the connection": ("HEAD", "drop", 3, 503),
    "the Hub hangs": ("HEAD", "hang", 1, 503),
    "the large files hang": (LARGE, "hang", 1, 503),
}


@pytest.mark.parametrize(("match", "kind", "times", "status"), RECOVERED.values(), ids=RECOVERED)
def test_a_fault_that_passes_is_not_seen(
    hub: HubServer, zoo: Host, home: Path, folder: Path, match: str, kind: FaultKind, times: int, status: int
) -> None:
    hub.fail(match, kind, times, status)
    assert equal(pvzoo.create(NAME, pretrained=True), folder)
    assert not any(fault.times for fault in hub.faults), "the fault happened"
    assert len(blobs(home)) == 2


NO_LINE = "no connection to {url} that holds"
CHANGED = "also when it was fetched anew; nothing of it was kept. What stands between here and {url} changes files"
FAILED: dict[str, tuple[str, FaultKind, int, type[PvzooError], str]] = {
    "always broken": (LARGE, "reset", 503, HubError, f"model.safetensors cannot be fetched: {NO_LINE} (ReadError"),
    "always ends": (LARGE, "truncate", 503, HubError, f"model.safetensors cannot be fetched: {NO_LINE}"),
    "always short": (
        LARGE,
        "short",
        503,
        HubError,
        f"model.safetensors cannot be fetched: {NO_LINE} (OSError: Consist",
    ),
    "always other bytes": (LARGE, "tamper", 503, IntegrityError, CHANGED),
    "always another config": (SMALL, "tamper", 503, IntegrityError, CHANGED),
    "never there": (LARGE, "status", 503, HubError, "answered 503; try again later"),
    "never allowed": (
        LARGE,
        "status",
        403,
        HubError,
        "refuses (the server is not well); check the token and its rights",
    ),
    "Hub down": ("HEAD", "status", 500, HubError, "{url} answered 500; try again later"),
    "Hub breaks": ("HEAD", "drop", 503, HubError, f"config.json cannot be fetched: {NO_LINE}"),
    "not a Hub": ("HEAD|GET", "page", 200, HubError, "{url} does not answer as a Hub does (no X-Repo-Commit or ETag);"),
    "a firewall": (
        "HEAD|GET",
        "page",
        403,
        HubError,
        "{url} answers 403 with a page, as no Hub does; HF_ENDPOINT, a pro",
    ),
    "a proxy": (
        "HEAD",
        "status",
        407,
        HubError,
        "the proxy on the way to {url} wants a login; write it as HTTP_PROXY=",
    ),
    "not a Hub either": ("HEAD|GET", "status", 404, HubError, "{url} answers 404 as no Hub does; HF_ENDPOINT, a proxy"),
}


@pytest.mark.parametrize(("match", "kind", "status", "error", "message"), FAILED.values(), ids=FAILED)
def test_a_fault_that_stays_is_an_error_that_leaves_nothing_behind(
    hub: HubServer,
    zoo: Host,
    home: Path,
    content: dict[str, bytes],
    match: str,
    kind: FaultKind,
    status: int,
    error: type[PvzooError],
    message: str,
) -> None:
    hub.fail(match, kind, 10**6, status)
    assert message.format(url=hub.url) in refused(error, NAME, pretrained=True)
    assert all(path.read_bytes() == content["config.json"] for path in blobs(home))


def test_patience_ends(hub: HubServer, zoo: Host, clock: Clock) -> None:
    hub.fail("HEAD", "status", 10**6)
    refused(HubError, NAME, pretrained=True)
    assert client.PATIENCE - 1 < clock.slept < client.PATIENCE + 9


@pytest.mark.parametrize(("error", "tries"), [(TimeoutError, 2), (ConnectionResetError, 3)])
def test_time_in_which_nothing_moved_is_patience_too(clock: Clock, error: type[Exception], tries: int) -> None:
    """And a download that broke after a while did move, so patience begins when it broke."""
    begun = []

    def call() -> None:
        begun.append(clock.monotonic())
        clock.sleep(25)
        raise error

    with pytest.raises(HubError, match=error.__name__):
        client.request(call, "it cannot be fetched", REPO)
    assert len(begun) == tries


@pytest.mark.parametrize(("match", "kind"), [("HEAD", "hang"), (LARGE, "stall")])
def test_a_hub_that_hangs_is_given_up(
    hub: HubServer, zoo: Host, home: Path, monkeypatch: pytest.MonkeyPatch, match: str, kind: FaultKind
) -> None:
    for limit in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, limit, 0.1)
    hub.fail(match, kind, 10**6)
    assert f"{NO_LINE.format(url=hub.url)} (ReadTimeout" in refused(HubError, NAME, pretrained=True)
    assert not any(path.name.endswith(".incomplete") for path in blobs(home))


def test_nobody_listens(zoo: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    message = refused(HubError, NAME, pretrained=True)
    assert message.startswith(f"{REPO}: config.json cannot be fetched: no connection to http://127.0.0.1:9 that holds")
    assert message.endswith("check the network, or HF_ENDPOINT")


def test_a_proxy_that_wants_a_login(hub: HubServer, zoo: Host, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it lets anything through to an https:// address: no answer of a Hub, and none to wait for."""
    hub.fail("CONNECT", "status", 10**6, 407)
    monkeypatch.setenv("HTTPS_PROXY", hub.url)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    assert refused(HubError, NAME, pretrained=True) == (
        f"{REPO}: config.json cannot be fetched: the proxy on the way to https://hub.example wants a login; "
        "write it as HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"
    )
    assert clock.slept == 0


@pytest.mark.parametrize("address", ["foo", "localhost:9", "ftp://x.y", "http://", "https:///models"])
def test_an_address_that_cannot_work(zoo: Host, clock: Clock, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    message = f"HF_ENDPOINT is '{address}', which is no address; write it as https://huggingface.co"
    assert refused(HubError, NAME, pretrained=True) == message
    assert clock.slept == 0


@pytest.mark.parametrize("how", ["drop", "status", "hang"])
@pytest.mark.parametrize("repo", [REPO, SHARDED])
def test_a_cached_copy_serves_while_the_hub_is_down(
    hub: HubServer, clock: Clock, folder: Path, repo: str, how: FaultKind
) -> None:
    pvzoo.create(f"hf-hub:{repo}")
    hub.fail("", how, 10**6)
    assert equal(pvzoo.create(f"hf-hub:{repo}"), folder)
    assert clock.slept == 0, "what is here is not waited for"


@pytest.mark.parametrize(
    ("changes", "said", "fetched"),
    [
        ({}, "model.safetensors of v1 has the digest ", {"config.json"}),
        ({"summary": "another"}, "config.json of v1 has ", set()),
        ({"num_classes": 7}, "config.json of v1 has the digest ", {"config.json"}),  # as many bytes as before
    ],
    ids=["other weights", "other size", "other config"],
)
def test_a_moved_tag_is_seen_before_weights_are_fetched(
    hub: HubServer, zoo: Host, home: Path, tmp_path: Path, changes: dict[str, Any], said: str, fetched: set[str]
) -> None:
    other = made(**changes).save(tmp_path / "other")
    hub.repos[REPO].tags["v1"] = hub.add(REPO, {path.name: path.read_bytes() for path in other.iterdir()})
    message = refused(IntegrityError, NAME, pretrained=True)
    assert message.startswith(f"{REPO}: {said}")
    assert f" on {hub.url}; nothing was kept. The tag was moved, or this is not the repository that was publ" in message
    assert message.endswith(": ask who published it, or install a package that has these weights")
    assert {name for name in ("config.json", "model.safetensors") if hub.count(f"^GET .*{name}")} == fetched


def test_an_address_cannot_name_a_place_outside_of_the_cache(
    hub: HubServer, zoo: Host, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = hub.repos[REPO]
    commit = found.commits[found.tags["v1"]]
    for name, stored in commit.items():
        object.__setattr__(stored, "sha256" if stored.lfs else "git_id", f"../../../{name}")
    assert "names a digest that is none, '../../../config.json'" in refused(HubError, NAME, pretrained=True)
    assert blobs(home) == []


# --- the cache --------------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def flip_keeping_times(path: Path) -> None:
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


DAMAGE = {"flipped": flip, "flipped, with its times": flip_keeping_times, "truncated": truncate}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("pinned", [True, False])
def test_damage_in_the_cache_is_mended_or_said(
    hub: HubServer, zoo: Host, home: Path, folder: Path, damage: Callable[[Path], None], name: str, pinned: bool
) -> None:
    what: tuple[str, dict[str, Any]] = (NAME, {"pretrained": True}) if pinned else (f"hf-hub:{REPO}@v1", {})
    pvzoo.create(what[0], **what[1])
    (link,) = home.glob(f"hub/models--*/snapshots/*/{name}")
    damage(link.resolve())
    hub.requests.clear()
    assert equal(pvzoo.create(what[0], **what[1]), folder)
    assert [request for request in hub.requests if request.startswith("GET")] != []

    damage(link.resolve())
    message = refused(IntegrityError, what[0], **what[1], offline=True)
    assert re.match(rf".*/{re.escape(name)}: has .* and should have .*, and was removed; without offline", message)
    assert not link.exists()


def test_a_cache_that_cannot_be_written(hub: HubServer, zoo: Host, home: Path, folder: Path, tmp_path: Path) -> None:
    """What is in it is used; the rest is an error that names the place."""
    pvzoo.create(NAME, pretrained=True)
    full, empty = home / "hub", tmp_path / "empty"
    empty.mkdir()
    for place in (full, empty):
        for path in (place, *place.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o555 if path.is_dir() else 0o444)
    with unprivileged(tmp_path):
        assert pvzoo.create(NAME, pretrained=True).spec.name == NAME
        message = refused(HubError, NAME, pretrained=True, cache_dir=empty)
    assert re.search(r"Permission denied: .*empty.*; choose another place with HF_HOME or cache_dir=$", message)


def test_a_damaged_file_in_a_cache_that_cannot_be_written(zoo: Host, home: Path, tmp_path: Path) -> None:
    pvzoo.create(NAME, pretrained=True)
    (link,) = home.glob("hub/models--*/snapshots/*/model.safetensors")
    flip(link.resolve())
    for path in (home / "hub").rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o555)
    with unprivileged(tmp_path):
        message = refused(IntegrityError, NAME, pretrained=True)
    assert message.startswith(f"{link}: is not the file that was published, and cannot be removed: Permission denied")


@pytest.mark.parametrize(("number", "why"), [(errno.EROFS, "Read-only file system"), (errno.EACCES, ".* kB")])
def test_weights_that_cannot_be_removed(
    zoo: Host, home: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, number: int, why: str
) -> None:
    """huggingface_hub lets the system's errors through, but for one, of which it only writes a remark."""
    pvzoo.create(NAME, pretrained=True)
    (folder,) = home.glob("hub/models--*/snapshots/*")

    def refuse(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)
    done = call("weights", "remove", TAGGED)
    assert done.code == 2
    assert re.search(rf"error: {folder}: cannot be removed \({why}\); check who may write there\n$", done.err)


def test_a_full_disk(zoo: Host, home: Path, content: dict[str, bytes]) -> None:
    with file_limit(100_000):
        message = refused(HubError, NAME, pretrained=True)
    assert "File too large" in message
    assert message.endswith("make room, or choose another place with HF_HOME or cache_dir=")
    assert [path.read_bytes() for path in blobs(home)] == [content["config.json"]]


# --- entries that are wrong -------------------------------------------------------------------------------------------


def test_a_tag_that_does_not_exist_has_a_suggestion(zoo: Host) -> None:
    assert refused(WeightsError, NAME, pretrained="mad") == (
        f"there are no pretrained weights for {NAME}.mad; did you mean 'made'?"
    )
    assert refused(PvzooError, f"{NAME}.mad") == f"{NAME} has no weights tagged 'mad'; did you mean 'made'?"


def test_weights_that_need_a_newer_pvzoo(clock: Clock, entry: Weights) -> None:
    later = entry.model_copy(update={"pvzoo": "9.0"})
    with using(listing({TAGGED: later})):
        message = f"{TAGGED} needs pvzoo 9.0 or newer, and this is {pvzoo.__version__}: pip install -U 'pvzoo>=9.0'"
        assert refused(WeightsError, NAME, pretrained=True) == message


def test_weights_of_another_architecture(clock: Clock, entry: Weights) -> None:
    with using(listing({"stage2_shared_nano.made": entry})):
        message = refused(WeightsError, "stage2_shared_nano", pretrained=True)
    assert f": holds {NAME}, not stage2_shared_nano; " in message


def test_a_path_in_place_of_a_tag(zoo: Host, hub: HubServer, folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(folder.parent)
    for path in (folder, str(folder), f"./{folder.name}", folder / "model.safetensors"):
        assert equal(pvzoo.create(NAME, pretrained=path, offline=True), folder)
    assert pvzoo.create(NAME, pretrained=folder, num_classes=9).spec.num_classes == 9
    assert hub.requests == []
    assert refused(WeightsError, NAME, pretrained=tmp_path / "no").startswith(f"{tmp_path / 'no'}: no such folder")
    file = folder / "model.safetensors"
    for path, way in ((folder, f"create('local-dir:{folder}')"), (file, f"load('{file}')")):
        message = refused(WeightsError, "stage1_convnext_vein_nano", pretrained=path)
        assert message == f"{folder}: holds {NAME}, not stage1_convnext_vein_nano; pvzoo.{way} takes it as it is"


# --- on the command line ----------------------------------------------------------------------------------------------


def test_weights_of_the_manifest_are_pulled_verified_listed_and_removed(
    hub: HubServer, zoo: Host, home: Path, entry: Weights, call: Callable[..., Any]
) -> None:
    done = call("verify", "--all")
    assert (done.code, done.out) == (2, "")
    nothing = "error: nothing was checked: none of these weights is on this machine; 'pvzoo pull NAME' fetches some\n"
    assert done.err.endswith(nothing)
    assert done.err.startswith(f"{TAGGED} is not on this machine; 'pvzoo pull {TAGGED}' fetches it\n")
    for command in ("verify", "publish"):
        done = call(command, TAGGED)
        message = f"error: {TAGGED} is not on this machine; 'pvzoo pull {TAGGED}' fetches it\n"
        assert (done.code, done.err) == (2, message)
    where = Path(call("pull", NAME).out.rstrip("\n"))
    assert sorted(path.name for path in where.iterdir()) == ["config.json", "model.safetensors"]
    hub.requests.clear()
    for name in (TAGGED, NAME):
        assert call("verify", name).out == f"{TAGGED}: ok, 2 files, {file_size(entry.size)}\n"
    assert call("weights").out.splitlines()[-1].split("\t")[:2] == [TAGGED, str(where)]
    (link,) = home.glob("hub/models--*/snapshots/*/model.safetensors")
    flip(link.resolve())
    done = call("verify", "--all")
    assert done.code == 1
    assert "and was removed; without offline it is fetched from" in done.out
    assert call("weights", "remove", TAGGED).code == 0
    assert blobs(home) == []
    assert hub.requests == []


def test_help_says_how_a_revision_is_named(call: Callable[..., Any]) -> None:
    """What stands in brackets would be taken for markup."""
    assert "@REVISION" in call("pull", "--help").out


@pytest.mark.parametrize("model", [f"hf-hub:{REPO}", TAGGED, NAME])
def test_compare_takes_them(zoo: Host, call: Callable[..., Any], model: str) -> None:
    palm = Path(__file__).parents[1] / "examples/palms/palm/anna_1.png"
    done = call("compare", "--model", model, palm, palm)
    assert (done.code, done.out) == (0, "score 1.0000\n")


# --- several processes ------------------------------------------------------------------------------------------------

CHILD = """
import hashlib, json, sys, torch, pvzoo
sys.path.insert(0, {tests!r})
from small import acme
from pvzoo.plugins import using
from pvzoo.zoo import Access
host = acme(build="pvzoo.hub.sources:HubSource", params=Access, manifest=json.loads({manifest!r}))
print("ready", flush=True); sys.stdin.readline()
with using(host):
    model = pvzoo.create({name!r}, pretrained=True)
state = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
print(hashlib.sha256(state).hexdigest(), flush=True)
"""


def children(count: int, hub: HubServer, home: Path, entry: Weights) -> list[subprocess.Popen[str]]:
    """Processes that are at the point of making the model, and go on when they are sent a line."""
    code = CHILD.format(
        tests=str(Path(__file__).parent), manifest=Manifest(weights={TAGGED: entry}).to_json(), name=NAME
    )
    paths = {"PYTHONPATH": str(Path(pvzoo.__file__).parents[1])}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment(hub.url, home), **paths},
        )
        for _ in range(count)
    ]
    for child in started:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    return started


def released(started: list[subprocess.Popen[str]]) -> list[str]:
    for child in started:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    outputs = [child.communicate(timeout=400)[0].strip() for child in started]
    assert [child.returncode for child in started] == [0] * len(started)
    return outputs


def state_digest(folder: Path) -> str:
    import hashlib

    state = pvzoo.create(f"local-dir:{folder}").state_dict()
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in state.values())).hexdigest()


@pytest.mark.slow
def test_processes_at_once_fetch_once(hub: HubServer, home: Path, folder: Path, entry: Weights) -> None:
    outputs = released(children(8, hub, home, entry))
    assert outputs == [state_digest(folder)] * 8
    assert hub.count(LARGE) == 1
    assert len(blobs(home)) == 2


@pytest.mark.slow
def test_a_process_that_is_killed_in_the_middle(hub: HubServer, home: Path, folder: Path, entry: Weights) -> None:
    hub.fail(LARGE, "stall")
    (killed,) = children(1, hub, home, entry)
    assert killed.stdin is not None
    killed.stdin.write("\n")
    killed.stdin.flush()
    deadline = time.monotonic() + 200
    # The server has sent half of the file and stalls; the client keeps that in memory for a while.
    while not (hub.count(LARGE) and any(path.name.endswith(".incomplete") for path in blobs(home))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert released(children(1, hub, home, entry)) == [state_digest(folder)]
    whole = [path for path in blobs(home) if not path.name.endswith(".incomplete")]
    assert len(whole) == 2
