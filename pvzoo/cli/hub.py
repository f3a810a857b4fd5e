"""``pvzoo pull``, ``push``, ``verify``, ``weights``, ``publish``: weights here and on the Hugging Face Hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import HubError, PvzooError, UnknownNameError, WeightsError, did_you_mean, file_size
from .output import console, note, print_json, table

if TYPE_CHECKING:
    from ..manifest import Weights
    from ..weights import Files
    from ..zoo import Access

CacheOption = Annotated[
    Path | None, typer.Option(help="Cache of the Hugging Face Hub, if not its usual one.", show_default=False)
]

weights_app = typer.Typer(invoke_without_command=True, help="List the weights that are on this machine, remove some.")


def pull(
    name: Annotated[
        str,
        typer.Argument(
            help="Model, model.tag, or hf-hub:NAMESPACE/NAME, with @REVISION behind it if wanted.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Also copy the files into a new folder, for local-dir:.", show_default=False),
    ] = None,
    cache_dir: CacheOption = None,
) -> None:
    """Fetch weights and check them, so that they load offline; prints where they are.

    Examples: [bold]pvzoo pull stage2_spatial[/], [bold]pvzoo pull hf-hub:acme/palm -o palm[/]
    """
    from ..zoo import Access

    if out is not None and out.exists():
        raise PvzooError(f"{out} is there already; name a new folder")
    files = _files(name, Access(cache_dir=cache_dir))
    if out is None:
        console.print(str(sorted(files.values())[0].parent), highlight=False, markup=False, soft_wrap=True)
        return
    try:
        out.mkdir(parents=True)
        for file, path in files.items():
            shutil.copyfile(path, out / file)
    except OSError as error:
        raise PvzooError(f"{out}: cannot be written: {error.strerror or error}") from error
    console.print(str(out), highlight=False, markup=False, soft_wrap=True)


def push(
    folder: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="A saved model.", show_default=False)],
    repo: Annotated[str, typer.Argument(help="NAMESPACE/NAME; made if it does not exist.", show_default=False)],
    facts: Annotated[
        Path | None,
        typer.Option(
            help="YAML file from which the card is written; README.md as it is if left out.", show_default=False
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private, if it is made.")] = False,
    tag: Annotated[str | None, typer.Option(help="Tag of the commit, such as v1.", show_default=False)] = None,
) -> None:
    """Publish a saved model: config, weights and card in one commit, then the tag. docs/weights.md has the facts' form.

    The token is that of [bold]hf auth login[/] or HF_TOKEN. Pushing the same again changes nothing.

    Example: [bold]pvzoo push runs/first/model acme/palm --facts facts.yaml --tag v1[/]
    """
    from ..hub import cards, publish

    done = publish.push(
        folder.expanduser(), repo, facts=cards.read_facts(facts) if facts else None, private=private, tag=tag
    )
    console.print(done.url, highlight=False, markup=False, soft_wrap=True)
    note(f"next: pvzoo.create('hf-hub:{repo}{f'@{tag}' if tag else ''}')")


def publish(
    names: Annotated[list[str] | None, typer.Argument(metavar="[MODEL.TAG]...", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="All that pvzoo's own manifest lists.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make new repositories private.")] = False,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Write pvzoo's own manifest, with commits in place of tags.", show_default=False),
    ] = None,
) -> None:
    """Send the zoo's weights from installed packages to the repositories that the manifest names, with their cards.

    Each is checked against the manifest first, and nothing is sent if one is wrong. What was sent before is left as it
    is, so an interrupted run is begun again.

    Example: [bold]HF_TOKEN=... pvzoo publish --all[/]
    """
    from .. import catalog
    from ..hub import publish as hub
    from ..hub import verify
    from ..manifest import Manifest
    from ..model import Model

    listed = _chosen(names, every, catalog.pinned(own=True))
    faults = [fault for name in listed for fault in verify.faults(name, listed[name], _local(name), Model)]
    if faults:
        raise WeightsError("nothing was sent:\n" + "\n".join(f"  {fault}" for fault in faults))
    commits = {}
    for name, weights in listed.items():
        done = hub.publish(name, weights, private=private)
        commits[name] = done.commit
        table(("weights", "commit", "address"), [(name, done.commit, done.url)])
    if manifest is not None:
        pinned = {
            name: weights.model_copy(update={"revision": commits.get(name, weights.revision)})
            for name, weights in catalog.pinned(own=True).items()
        }
        try:
            manifest.write_text(Manifest(weights=pinned).to_json(), encoding="utf-8")
        except OSError as error:
            raise PvzooError(f"{manifest}: cannot be written: {error.strerror or error}") from error
        note(f"{manifest}: {len(commits)} of {len(pinned)} entries have their commit now")


def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[MODEL.TAG]...", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="All that the manifest lists and this machine has.")] = False,
) -> None:
    """Check weights on this machine against the manifest: digests, sizes, type, parameters, GMACs, thresholds.

    Digests, sizes, parameters and GMACs are computed anew; thresholds are those in the files. Exits with 1 if something
    differs, with 2 if there is nothing to check; no network is used.

    Examples: [bold]pvzoo verify stage2_spatial.v1[/], [bold]pvzoo verify --all[/]
    """
    from .. import catalog
    from ..hub import verify as hub
    from ..model import Model

    wrong, checked = False, 0
    chosen = _chosen(names, every, catalog.pinned())
    for name, weights in chosen.items():
        try:
            files = _local(name)
        except HubError as error:
            if not every:
                raise
            note(str(error))
            continue
        except WeightsError as error:
            faults = [str(error)]
        else:
            faults = hub.faults(name, weights, files, Model)
        wrong, checked = wrong or bool(faults), checked + 1
        for line in faults or [f"{name}: ok, {len(weights.files)} files, {file_size(weights.size)}"]:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if chosen and not checked:
        raise WeightsError(
            "nothing was checked: none of these weights is on this machine; 'pvzoo pull NAME' fetches some"
        )
    if wrong:
        raise typer.Exit(1)


@weights_app.callback()
def weights(
    ctx: typer.Context,
    cache_dir: CacheOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the weights that are on this machine: in installed packages, and in the cache of the Hugging Face Hub."""
    if ctx.invoked_subcommand is not None:
        return
    from .. import catalog
    from ..hub import cache
    from ..registry import BUILTIN
    from ..zoo import Access

    rows = [
        (
            name,
            entry.origin.distribution or entry.name,
            "",
            file_size(entry.pinned[name].size) if name in entry.pinned else "",
        )
        for entry in catalog.weight_sources()
        if entry.origin.vendor != BUILTIN
        for name in entry.provides
    ]
    for kept in cache.kept(Access(cache_dir=cache_dir)):
        rows += [(name, str(kept.path), kept.commit[:12], file_size(kept.size)) for name in kept.names]
    if as_json:
        keys = ("name", "where", "commit", "size")
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    table(("weights", "where", "commit", "size"), rows)
    if not rows:
        note("there are no weights on this machine")


@weights_app.command()
def remove(
    target: Annotated[str, typer.Argument(help="model.tag, hf-hub:NAMESPACE/NAME, or a commit.", show_default=False)],
    cache_dir: CacheOption = None,
) -> None:
    """Remove weights from the cache of the Hugging Face Hub."""
    from ..hub import cache
    from ..zoo import Access

    freed = cache.remove(target, Access(cache_dir=cache_dir))
    console.print(f"{target}: {file_size(freed)} freed", highlight=False, markup=False, soft_wrap=True)


def _files(name: str, access: Access) -> Files:
    from .. import catalog
    from ..hub import sources

    if name.startswith("hf-hub:"):
        return sources.repository(name, None, access)
    model, tag = catalog.split_tag(name)
    return sources.find(catalog.find_model(model).name, tag, access)


def _local(name: str) -> Files:
    """The files of an entry on this machine.

    Raises:
        HubError: They are not here.
    """
    from ..zoo import Access

    try:
        return _files(name, Access(offline=True))
    except HubError as error:
        # What the library says of its argument offline is nothing that a command has.
        raise HubError(f"{name} is not on this machine; 'pvzoo pull {name}' fetches it") from error


def _chosen(names: list[str] | None, every: bool, all_: dict[str, Weights]) -> dict[str, Weights]:
    """The entries that were asked for by name, a tag left out is the default, or all of ``all_`` that have a model."""
    from .. import catalog

    if bool(names) == every:
        raise PvzooError("give names or --all, not both" if names else "name weights, or give --all")
    known = {name: weights for name in catalog.list_models(pretrained=True) if (weights := catalog.weights(name))}
    if not names:
        if not all_:
            note("the manifest lists no weights yet")
        return {name: weights for name, weights in known.items() if name in all_}
    names = [f"{name}.{tags[0]}" if (tags := catalog.tags(name)) else name for name in names]
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or "; 'pvzoo list --pretrained' shows all"
            raise UnknownNameError(f"the manifest lists no weights {name!r}{hint}", kind="weights", name=name)
    return {name: known[name] for name in names}
