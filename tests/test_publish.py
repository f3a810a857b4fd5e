"""Publishing: cards, one commit, tags, and a Hub that answers or does not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hubclient import Clock, connect
from hubserver import OWNER, STRANGER, HubServer
from huggingface_hub import ModelCard, constants
from small import PALM, Acme, acme
from unprivileged import file_limit

import pvzoo
from pvzoo import catalog
from pvzoo.errors import HubError, WeightsError
from pvzoo.hub import cards, packages
from pvzoo.hub.publish import push
from pvzoo.manifest import INDEX, Facts, Manifest, Metric, read_manifest
from pvzoo.model import Model
from pvzoo.plugins import Host, using
from pvzoo.tensorfile import About
from pvzoo.threshold import Threshold

NAME, REPO = "acme/palm", "acme/tiny-palm"
FACTS: dict[str, Any] = {
    "licence": "Apache-2.0",
    "data": [{"name": "SynthPalm 1", "origin": "synthetic", "licence": "CC0-1.0", "url": "https://palms.example"}],
    "intended_use": "Research on palm verification.",
    "limits": "Real palms were never tried.",
    "metrics": [
        {
            "name": "tar_at_fmr",
            "at": 1e-3,
            "value": 0.875,
            "low": 0.81,
            "high": 0.92,
            "dataset": "SynthPalm 1",
            "protocol": "open_subject, test",
            "genuine": 4_000,
            "impostor": 90_000,
            "subjects": 40,
        }
    ],
}
CUT = Threshold(
    value=0.42,
    rule="fmr",
    target=1e-3,
    fmr=9e-4,
    fnmr=0.1,
    genuine=900,
    impostor=90_000,
    measured_on="SynthPalm 1, dev",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = made()
    model.set_thresholds([CUT])
    return model.save(tmp_path_factory.mktemp("model"))


def made(**changes: Any) -> Model:
    return pvzoo.create({**PALM, "name": NAME}, **changes)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def clock(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = connect(monkeypatch, hub.url, tmp_path / "home")
    monkeypatch.setenv("HF_TOKEN", OWNER)
    return clock


@pytest.fixture
def facts() -> Facts:
    return Facts.model_validate(FACTS)


def writes(hub: HubServer) -> list[str]:
    return [request for request in hub.requests if "/commit/" in request or "/tag/" in request]


# --- cards ------------------------------------------------------------------------------------------------------------


def test_a_card_says_what_its_reader_needs(hub: HubServer, clock: Clock, folder: Path, facts: Facts) -> None:
    push(folder, REPO, facts=facts, tag="v1")
    text = hub.content(REPO, "README.md")
    assert text is not None
    card = ModelCard(text.decode())
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "pvzoo")
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("tar_at_fmr", 0.875, "SynthPalm 1")
    assert result.metric_args["low"] == 0.81
    assert result.dataset_config == "open_subject, test"
    for said in (
        f'pvzoo.create("hf-hub:{REPO}@v1")',
        "## Intended use\n\nResearch on palm verification.",
        "* SynthPalm 1 (https://palms.example), synthetic: no data of persons. Licence of the data: CC0-1.0",
        "On SynthPalm 1, open_subject, test (4,000 genuine, 90,000 impostor, 40 subjects):\n\n"
        "| figure | value | 95 % interval by subject |\n| --- | --- | --- |\n"
        "| tar_at_fmr 0.001 | 0.875 | 0.81 to 0.92 |\n",
        "* FMR 0.001: 0.42, with FMR 0.0009 in 90,000 impostor comparisons on SynthPalm 1, dev",
        "## Limits\n\nReal palms were never tried.",
        "## Spoofing and misuse",
        "presentation attacks (ISO/IEC 30107)",
        "## Licence\n\nApache-2.0",
        f"--model {NAME} --init hf-hub:{REPO}@v1 --data palms/",
        "> The weights are random: this model was never trained",
    ):
        assert said in card.content


@pytest.mark.parametrize(
    ("datasets", "types"),
    [
        (["synthpalm-v1"], ["synthpalm-v1"]),
        (["CASIA"], ["casia-"]),
        (["Tongji", "tongji", "TONGJI!"], ["tongji-", "tongji", "tongji-"]),
        (["掌紋", "掌脈"], ["", ""]),
    ],
)
def test_the_hub_reads_each_figure_under_its_data_set_and_protocol(
    facts: Facts, datasets: list[str], types: list[str]
) -> None:
    """Also that of one modality, beside that of all."""
    given = [
        Metric(name="eer", value=value, dataset=name, protocol=protocol, modalities=used, genuine=10, impostor=20)
        for value, (name, protocol, used) in enumerate(
            product(datasets, ["open_subject(fold=0)", "closed_s1s2"], [(), ("palm",)]), 1
        )
    ]
    shown = facts.model_copy(update={"metrics": tuple(given)})
    card = ModelCard(cards.render(catalog.spec("stage1_convnext_palm"), About(), shown, "hf-hub:acme/palm"))
    read = ModelCard(str(card)).data.eval_results  # as who edits the card writes it again
    assert [(each.dataset_name, each.dataset_config, each.metric_name, each.metric_value) for each in read] == [
        (each.dataset, each.protocol, each.title, each.value) for each in given
    ]
    named = dict.fromkeys(each.dataset_type for each in read)
    assert len(named) == len(datasets)
    assert all(re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", name) for name in named)
    assert all(name.startswith(beginning) for name, beginning in zip(named, types, strict=True))


GOOD = "---\nlicense: mit\n---\n\n# Palm\n\n## Data\n\nMade up.\n\n## Intended use\n\nTests.\n"


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (GOOD, []),
        (GOOD.replace("## Data", "### data ##"), []),
        (GOOD.replace("license: mit", "tags: [x]"), ["its metadata names no license"]),
        (GOOD.replace("license: mit", "license:"), ["its metadata names no license"]),
        (GOOD.replace("license: mit", "license: none"), ["its metadata names no license: 'none' is none"]),
        (GOOD.replace("license: mit", "license: TBD"), ["its metadata names no license: 'TBD' is none"]),
        (GOOD.replace("Made up.", "### Palms\n\nMade up.\n\n### Veins"), []),
        (GOOD.replace("Made up.", "### Palms\n\n### Veins"), ["it has no section 'Data' with text in it"]),
        (GOOD.replace("Made up.", "# Palms\n\nMade up."), ["it has no section 'Data' with text in it"]),
        (GOOD.replace("Tests.", "<!-- What is it\nfor? -->"), ["it has no section 'Intended use' with text in it"]),
        (GOOD.replace("Made up.", " "), ["it has no section 'Data' with text in it"]),
        (GOOD.replace("## Intended use", "Intended use"), ["it has no section 'Intended use' with text in it"]),
        (
            "# Palm\n",
            [
                "its metadata names no license",
                "it has no section 'Data' with text in it",
                "it has no section 'Intended use' with text in it",
            ],
        ),
        ("---\nlicense: [\n---\n", ["its metadata cannot be read: while parsing a flow node"]),
    ],
)
def test_what_a_card_lacks(text: str, faults: list[str]) -> None:
    assert cards.faults(text) == faults


def test_a_card_that_was_saved_is_not_enough(hub: HubServer, clock: Clock, folder: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        push(folder, REPO)
    assert str(caught.value) == (
        f"{folder}/README.md: cannot be published: its metadata names no license; it has no section 'Data' with text "
        "in it; it has no section 'Intended use' with text in it. Write it into the card, or give facts (pvzoo push "
        "--facts FILE)"
    )
    assert hub.requests == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"licence": " "}, "licence: String should have at least 1 character"),
        ({"licence": None}, "licence: Input should be a valid string"),
        ({"data": []}, "data: Tuple should have at least 1 item after validation, not 0"),
        ({"intended_use": ""}, "intended_use: String should have at least 1 character"),
        ({"license": "MIT"}, "license: Extra inputs are not permitted"),
        (
            {"data": [{"name": "Ours", "origin": "persons"}]},
            "data.0: Value error, data of persons needs consent: how they agreed that models of their palms are given",
        ),
        (
            {"metrics": [{**FACTS["metrics"][0], "high": None}]},
            "metrics.0: Value error, an interval has low and high, or",
        ),
        ({"metrics": [{**FACTS["metrics"][0], "low": 0.95}]}, "metrics.0: Value error, low is 0.95, above high, 0.92"),
    ],
    ids=str,
)
def test_facts_have_no_defaults(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "facts.yaml"
    path.write_text(yaml.safe_dump({**FACTS, **change}))
    with pytest.raises(WeightsError) as caught:
        cards.read_facts(path)
    assert str(caught.value).startswith(f"{path}:\n  {message}")


# --- pushing ----------------------------------------------------------------------------------------------------------


def test_one_commit_then_the_tag(hub: HubServer, clock: Clock, folder: Path, facts: Facts) -> None:
    done = push(folder, REPO, facts=facts, tag="v1", private=True)
    repo = hub.repos[REPO]
    assert len(repo.commits) == 2, "that which made the repository, and one"
    assert repo.private
    assert repo.tags == {"v1": done.commit} == {"v1": repo.branches["main"]}
    assert sorted(repo.commits[done.commit]) == [".gitattributes", "README.md", "config.json", "model.safetensors"]
    assert hub.content(REPO, "model.safetensors") == (folder / "model.safetensors").read_bytes()
    assert done.files["model.safetensors"].sha256 == repo.commits[done.commit]["model.safetensors"].sha256
    assert done.url == f"{hub.url}/{REPO}/tree/v1"
    model = pvzoo.create(f"hf-hub:{REPO}@v1")
    assert model.thresholds == (CUT,)
    assert hub.leaked == []


def test_pushing_the_same_again_changes_nothing(hub: HubServer, clock: Clock, folder: Path, facts: Facts) -> None:
    first = push(folder, REPO, facts=facts, tag="v1")
    hub.requests.clear()
    assert push(folder, REPO, facts=facts, tag="v1") == first
    assert writes(hub) == []


def test_a_tag_is_never_moved(hub: HubServer, clock: Clock, folder: Path, facts: Facts) -> None:
    push(folder, REPO, facts=facts, tag="v1")
    hub.requests.clear()
    with pytest.raises(HubError) as caught:
        push(folder, REPO, facts=facts.model_copy(update={"limits": "Others."}), tag="v1")
    assert str(caught.value) == f"{REPO} has a tag v1 of other files; a tag of weights is never moved: choose another"
    assert writes(hub) == []


def test_a_model_pushes_itself(hub: HubServer, clock: Clock) -> None:
    model = made()
    done = model.push_to_hub(REPO, facts=FACTS, tag="v2")
    other = pvzoo.create(f"hf-hub:{REPO}", revision=done.commit)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    with pytest.raises(
        WeightsError, match=r"^facts:\n  licence: Field required\n  data: Field required\n  intended_use"
    ):
        model.push_to_hub(REPO, facts={})


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_not_sent(
    hub: HubServer, clock: Clock, folder: Path, tmp_path: Path, facts: Facts, value: float
) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    source = folder / "model.safetensors"
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(source)
    tensors["head.weight"][0, 0] = value
    save_file(tensors, tmp_path / "model.safetensors", metadata)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(
        WeightsError, match=r"model.safetensors: head.weight holds NaN or infinite values; nothing was sent$"
    ):
        push(tmp_path, REPO, facts=facts)
    assert hub.requests == []


def test_a_model_in_several_files_replaces_one_in_one_and_back(
    hub: HubServer, clock: Clock, folder: Path, tmp_path: Path, facts: Facts
) -> None:
    (tmp_path / "shards").mkdir()
    packages.shard(folder, tmp_path / "shards")
    for source, names in (
        (folder, ["model.safetensors"]),
        (tmp_path / "shards", ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", INDEX]),
        (folder, ["model.safetensors"]),
    ):
        done = push(source, REPO, facts=facts)
        there = hub.repos[REPO].commits[done.commit]
        assert [name for name in sorted(there) if name.startswith("model")] == names
        model = pvzoo.create(f"hf-hub:{REPO}", revision=done.commit)
        assert torch.equal(model.head.weight, pvzoo.create(f"local-dir:{folder}").head.weight)


REFUSED: dict[str, tuple[str, str | None, str]] = {
    "nobody": (REPO, "", "refuses (You don't have the rights to create a model under this namespace)"),
    "a stranger": (REPO, STRANGER, "refuses (You don't have the rights to create a model under this namespace)"),
    "another's place": (
        "other/palm",
        OWNER,
        "refuses (You don't have the rights to create a model under this namespace)",
    ),
    "a private one of another": ("acme/closed", STRANGER, "refuses (You don't have the rights"),
    "a name that is none": ("acme/a--b", OWNER, "'acme/a--b' cannot be a repository; write namespace/name"),
}


@pytest.mark.parametrize(("repo", "token", "message"), REFUSED.values(), ids=REFUSED)
def test_who_may_not_push(
    hub: HubServer, clock: Clock, folder: Path, facts: Facts, monkeypatch: Any, repo: str, token: str, message: str
) -> None:
    hub.add("acme/closed", {"config.json": b"{}"}, private=True)
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubError) as caught:
        push(folder, repo, facts=facts)
    assert message in str(caught.value)
    assert clock.slept == 0
    assert writes(hub) == []


# --- a Hub that is not well -------------------------------------------------------------------------------------------

COMMIT, TAG = "POST .*/commit/main", "POST .*/tag/"


@pytest.mark.parametrize(
    ("match", "kind"),
    [
        (COMMIT, "lose"),
        (COMMIT, "drop"),
        (COMMIT, "status"),
        (TAG, "lose"),
        (TAG, "drop"),
        ("POST .*/repos/create", "lose"),
        ("POST .*/preupload/", "status"),
        ("PUT /lfs/", "drop"),
        ("GET .*/refs", "reset"),
        ("POST .*/validate-yaml", "status"),
    ],
)
def test_what_fails_once_is_done_once(
    hub: HubServer, clock: Clock, folder: Path, facts: Facts, match: str, kind: Any
) -> None:
    hub.fail(match, kind)
    done = push(folder, REPO, facts=facts, tag="v1")
    assert not any(fault.times for fault in hub.faults), "the fault happened"
    repo = hub.repos[REPO]
    assert len(repo.commits) == 2
    assert repo.tags == {"v1": done.commit}
    assert hub.content(REPO, "model.safetensors") == (folder / "model.safetensors").read_bytes()


NOT_A_HUB = "HF_ENDPOINT, a proxy or a firewall may lead elsewhere"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (200, f"answers as no Hub does (JSONDecodeError: Expecting value: line 1 column 1 (char 0)); {NOT_A_HUB}"),
        (403, f"answers 403 with a page, as no Hub does; {NOT_A_HUB}"),
        (407, "wants a login; write it as HTTP_PROXY=http://NAME:PASSWORD@HOST:PORT"),
    ],
)
def test_a_push_to_what_is_no_hub(
    hub: HubServer, clock: Clock, folder: Path, facts: Facts, status: int, message: str
) -> None:
    hub.fail("", "page", 10**6, status)
    with pytest.raises(HubError) as caught:
        push(folder, REPO, facts=facts)
    assert str(caught.value).startswith(f"{REPO} cannot be made: ")
    assert str(caught.value).endswith(message)
    assert clock.slept == 0


def test_a_hub_that_does_not_say_what_it_has_is_given_up(
    hub: HubServer, clock: Clock, folder: Path, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    hub.fail(f"GET /api/models/{REPO}$", "hang", 10**6)
    with pytest.raises(HubError, match=rf"^{REPO} cannot be read: no connection to {hub.url} that holds \(ReadTimeout"):
        push(folder, REPO, facts=facts)


def test_a_push_that_was_interrupted_goes_on(hub: HubServer, clock: Clock, folder: Path, facts: Facts) -> None:
    hub.fail(TAG, "status", 10**6)
    with pytest.raises(
        HubError, match=r"^acme/tiny-palm has the files, and the tag v1 cannot be made: .* answered 503; try"
    ):
        push(folder, REPO, facts=facts, tag="v1")
    hub.faults.clear()
    done = push(folder, REPO, facts=facts, tag="v1")
    assert len(hub.repos[REPO].commits) == 2
    assert hub.repos[REPO].tags == {"v1": done.commit}


def test_somebody_else_pushes_meanwhile(
    hub: HubServer, clock: Clock, folder: Path, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    push(folder, REPO, facts=facts)
    ours = HfApi.create_commit

    def late(self: HfApi, *args: Any, **kwargs: Any) -> Any:
        monkeypatch.undo()
        connect(monkeypatch, hub.url, folder.parent)
        monkeypatch.setenv("HF_TOKEN", OWNER)
        hub.add(REPO, {"config.json": b"{}"})
        return ours(self, *args, **kwargs)

    monkeypatch.setattr(HfApi, "create_commit", late)
    with pytest.raises(HubError) as caught:
        push(folder, REPO, facts=facts.model_copy(update={"limits": "Others."}))
    message = f"{REPO} was changed by somebody else meanwhile, and nothing was sent; look at it, then push again"
    assert str(caught.value) == message
    assert hub.content(REPO, "config.json") == b"{}"


def test_through_xet(tmp_path: Path, folder: Path, facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that large files go by default: hf_xet and its store, which is a folder here."""
    store = tmp_path / "cas"
    store.mkdir()
    with HubServer(store) as hub:
        clock = connect(monkeypatch, hub.url, tmp_path / "home")
        monkeypatch.setenv("HF_TOKEN", OWNER)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
        done = push(folder, REPO, facts=facts, tag="v1")
        assert list(store.rglob("*.mdb")), "the file went through Xet"
        assert hub.count("PUT /lfs/") == 0
        assert (
            hub.repos[REPO].commits[done.commit]["model.safetensors"].sha256 == done.files["model.safetensors"].sha256
        )
        model = pvzoo.create(f"hf-hub:{REPO}@v1")
        assert hub.count("xet-read-token") > 0
        assert hub.count("GET /cdn/") == 0
        assert torch.equal(model.head.weight, pvzoo.create(f"local-dir:{folder}").head.weight)
        (link,) = (tmp_path / "home").glob("hub/models--*/snapshots/*/model.safetensors")
        data = bytearray(link.read_bytes())
        data[-1] ^= 1
        link.resolve().chmod(0o644)
        link.resolve().write_bytes(data)
        again = pvzoo.create(f"hf-hub:{REPO}@v1")
        assert torch.equal(again.head.weight, model.head.weight)
        with file_limit(100_000), pytest.raises(HubError) as caught:
            pvzoo.create(f"hf-hub:{REPO}@v1", cache_dir=tmp_path / "full")
        assert "File too large (os error 27)" in str(caught.value)
        assert str(caught.value).endswith("make room, or choose another place with HF_HOME or cache_dir=")
        assert clock.slept == 0


# --- the whole zoo ----------------------------------------------------------------------------------------------------


def package(root: Path) -> Host:
    """A package of weights, without its installation, and pvzoo's own manifest listing the same."""
    host = acme(build=lambda params: packages.Packaged(root), manifest=root / "weights.json")
    own = host.find("weight_source", "hub")
    object.__setattr__(own, "pinned", read_manifest(root / "weights.json").weights)
    return host


@pytest.fixture
def shelf(tmp_path: Path, facts: Facts) -> Iterator[Path]:
    """Two models in a package of weights, in use."""
    root = tmp_path / "package"
    for tag in ("s1", "s2"):
        saved = made().save(tmp_path / tag)
        packages.add(root, saved, f"{NAME}.{tag}", facts, repo=f"acme/{tag}", revision="v1", build=Model)
    with using(package(root)):
        yield root


def test_the_owner_publishes_all(
    hub: HubServer, clock: Clock, shelf: Path, call: Callable[..., Any], tmp_path: Path
) -> None:
    pinned = tmp_path / "pinned.json"
    done = call("publish", "--all", "--manifest", pinned)
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 2
    written = Manifest.model_validate_json(pinned.read_text()).weights
    for name, weights in written.items():
        repo = hub.repos[weights.repo]
        assert weights.revision == repo.tags["v1"] == repo.branches["main"]
        assert f'pvzoo.create("hf-hub:{weights.repo}@v1")' in (hub.content(weights.repo, "README.md") or b"").decode()
        assert set(weights.files) < set(repo.commits[weights.revision]), name
    before = hub.requests.copy()
    assert call("publish", "--all").out == done.out
    assert writes(hub) == [request for request in before if "/commit/" in request or "/tag/" in request]

    # With the commits in the manifest, and after a change of the card, everything is there already.
    assert call("publish", "--all").code == 0
    listed = Host(plugins=[])
    object.__setattr__(listed.find("weight_source", "hub"), "pinned", written)
    source = {"build": lambda params: packages.Packaged(shelf), "manifest": json.loads(pinned.read_text())}
    listed.add("acme", Acme(source))
    with using(listed):
        again = call("publish", "--all")
    assert (again.code, again.err) == (0, "")
    assert [line.split("\t")[1] for line in again.out.splitlines()] == [w.revision for w in written.values()]
    assert len(writes(hub)) == 4, "a commit and a tag of each, once"

    # What is on the Hub now serves a machine that has the manifest alone.
    for place in (shelf / "files").iterdir():
        place.unlink()
    model = pvzoo.create("hf-hub:acme/s1", revision=written[f"{NAME}.s1"].revision)
    assert model.spec.name == NAME


def test_the_whole_zoo_is_not_what_others_installed(
    hub: HubServer, clock: Clock, shelf: Path, call: Callable[..., Any]
) -> None:
    with using(acme(build=lambda params: packages.Packaged(shelf), manifest=shelf / "weights.json")):
        done = call("publish", "--all")
        assert (done.code, done.out) == (2, "")  # its own files are not on this machine
        assert re.match(r"error: (\w+.v1) is not on this machine; 'pvzoo pull \1' fetches it$", done.err)
        assert not hub.repos
        assert call("publish", "acme/palm.s1").out.startswith("acme/palm.s1\t")
    assert list(hub.repos) == ["acme/s1"]


def test_nothing_is_sent_if_one_is_wrong(hub: HubServer, clock: Clock, shelf: Path, call: Callable[..., Any]) -> None:
    manifest = json.loads((shelf / "weights.json").read_text())
    right = manifest["weights"]["acme/palm.s2"]["macs"]
    manifest["weights"]["acme/palm.s2"]["macs"] += 1
    (shelf / "weights.json").write_text(json.dumps(manifest))
    with using(package(shelf)):
        done = call("publish", "--all")
    assert done.code == 2
    said = f"acme/palm.s2: macs is {right:,} in the files and {right + 1:,} in the manifest"
    assert done.err == f"error: nothing was sent:\n  {said}\n"
    assert hub.requests == []


@pytest.mark.usefixtures("no_plugins")
def test_push_and_pull_on_the_command_line(
    hub: HubServer, clock: Clock, folder: Path, call: Callable[..., Any], tmp_path: Path
) -> None:
    facts = tmp_path / "facts.yaml"
    facts.write_text(yaml.safe_dump(FACTS))
    done = call("push", folder, REPO, "--facts", facts, "--tag", "v1", "--private")
    assert (done.code, done.out) == (0, f"{hub.url}/{REPO}/tree/v1\n")
    assert done.err == f"next: pvzoo.create('hf-hub:{REPO}@v1')\n"
    assert call("pull", f"hf-hub:{REPO}", "-o", tmp_path / "copy").out == f"{tmp_path / 'copy'}\n"
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["config.json", "model.safetensors"]
    assert pvzoo.create(f"local-dir:{tmp_path / 'copy'}").spec.name == NAME
    again = call("pull", f"hf-hub:{REPO}", "-o", tmp_path / "copy")
    assert (again.code, again.err) == (2, f"error: {tmp_path / 'copy'} is there already; name a new folder\n")

    listed = call("weights")
    name, where, commit, size = listed.out.rstrip("\n").split("\t")
    kilobytes = f"{sum(file.stat().st_size for file in Path(where).iterdir()) / 1000:.1f} kB"
    assert (name, commit, size) == (f"hf-hub:{REPO}", hub.repos[REPO].branches["main"][:12], kilobytes)
    assert sorted(path.name for path in Path(where).iterdir()) == ["config.json", "model.safetensors"]
    gone = call("weights", "remove", f"hf-hub:{REPO}")
    assert gone.out == f"hf-hub:{REPO}: {kilobytes} freed\n"
    assert call("weights").err == "there are no weights on this machine\n"
    missing = call("weights", "remove", f"hf-hub:{REPO}")
    assert (missing.code, missing.out) == (2, "")
    assert missing.err.startswith(f"error: hf-hub:{REPO} is not in the cache")


def test_the_hub_s_answers_are_read_by_their_digests(hub: HubServer, clock: Clock, folder: Path, facts: Facts) -> None:
    """A commit that has other bytes under the right names is not taken for ours."""
    push(folder, REPO, facts=facts)
    hub.add(REPO, {"model.safetensors": b"other"})
    done = push(folder, REPO, facts=facts)
    assert hub.content(REPO, "model.safetensors", done.commit) == (folder / "model.safetensors").read_bytes()
