"""A new plugin: a small package with working components, their tests, and all that an index or CI wants (no torch).

The files of ``templates`` are filled in by :class:`string.Template`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from .. import __version__
from ..errors import PvzooError
from ..plugins import host, vendor_fault
from ..registry import NAME_RULE, is_name

MODEL = "stage2_spatial_nano"
# By kind: where a component stands in that model's spec.
FIELDS = {
    "fusion": "fusion.local",
    "backbone": "branches.local.backbone",
    "alignment": "branches.global.alignment",
    "head": "head",
}


@dataclass(frozen=True)
class _Component:
    """What the templates of a component are filled in with."""

    kind: str
    vendor: str
    name: str
    package: str

    @property
    def module(self) -> str:
        return f"{self.name.replace('-', '_')}_{self.kind}"

    @property
    def cls(self) -> str:
        return "".join(part.capitalize() for part in re.split("[-_]", self.name)) + self.kind.capitalize()

    @property
    def change(self) -> str:
        """The override of ``MODEL`` that puts it in, as Python."""
        return f'{{"{FIELDS[self.kind]}": "{self.vendor}/{self.name}"}}'

    def fill(self, template: str) -> str:
        return _fill(f"{self.kind}/{template}", **asdict(self), module=self.module, cls=self.cls)


def new_plugin(vendor: str, components: Mapping[str, Sequence[str]], out: Path) -> Path:
    """Writes a plugin package.

    Args:
        vendor: Its vendor name: ``"acme"`` makes ``pvzoo-acme`` with module ``pvzoo_acme``.
        components: Names by kind, one of ``FIELDS``, without the vendor.
        out: An existing folder, in which that of the package is made.

    Returns:
        The package's folder.

    Raises:
        PvzooError: If a name cannot be or is taken, or the folder is there already or cannot be written.
    """
    distribution = f"pvzoo-{vendor}"
    made = _components(vendor, components)
    folder = out / distribution
    if not out.is_dir():
        raise PvzooError(f"{out}: there is no such folder to write {distribution} into")
    if folder.exists():
        raise PvzooError(f"{folder} is there already, and nothing is overwritten; remove it, or choose another --out")
    try:
        for name, text in _render(distribution, made).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise PvzooError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return folder


def _components(vendor: str, components: Mapping[str, Sequence[str]]) -> list[_Component]:
    """Checks all names."""
    if fault := vendor_fault(vendor):
        raise PvzooError(f"vendor name {vendor!r} {fault}")
    for plugin in host().plugins:
        if plugin.vendor == vendor:
            raise PvzooError(f"vendor name {vendor!r} is taken by {plugin.label}, installed in {plugin.location}")
    made: dict[str, _Component] = {}
    for kind, names in components.items():
        for name in (name.removeprefix(f"{vendor}/") for name in names):
            if not is_name(name):
                raise PvzooError(f"{kind} name {name!r}: {NAME_RULE}; the vendor is put in front of it")
            component = _Component(kind, vendor, name, f"pvzoo_{vendor.replace('-', '_')}")
            other = made.setdefault(component.module, component)
            if other is not component:
                raise PvzooError(f"{kind} {name!r} needs module {component.module}, as {other.name!r} does; rename one")
    if not made:
        raise PvzooError(f"name at least one component: {', '.join(f'--{kind} NAME' for kind in FIELDS)}")
    return list(made.values())


def _render(distribution: str, made: Sequence[_Component]) -> dict[str, str]:
    """The text of each file of the package."""
    first = made[0]
    major, minor = map(int, __version__.split(".")[:2])
    hooks = ""
    for kind in dict.fromkeys(component.kind for component in made):
        hooks += f"\n\n@pvzoo.hookimpl\ndef register_{kind}s(register: pvzoo.Register) -> None:\n"
        hooks += "".join(component.fill("register.py") for component in made if component.kind == kind)
    tests = "".join(
        f'\n\n@parametrize_checks("{c.vendor}/{c.name}", kind="{c.kind}")\n'
        f"def test_{c.module}(check: Callable[[], None]) -> None:\n    check()\n"
        for c in made
    )
    values = {
        "vendor": first.vendor,
        "distribution": distribution,
        "package": first.package,
        "requires": f"pvzoo>={major}.{minor},<{major + 1}",
        "model": MODEL,
        "change": first.change,
        "params": "".join(component.fill("params.py") for component in made),
        "hooks": hooks.rstrip("\n"),
        "tests": tests,
        "changes": "\n".join(f"        {component.change}," for component in made),
        "rows": "\n".join(f"| `{component.vendor}/{component.name}` | {component.kind} |" for component in made),
        "files": "\n".join(f"* `{c.package}/{c.module}.py` holds the {c.kind} `{c.vendor}/{c.name}`." for c in made),
    }
    return {
        "pyproject.toml": _fill("pyproject.toml", **values),
        "README.md": _fill("README.md", **values),
        ".github/workflows/tests.yml": _fill("tests.yml", **values),
        f"{first.package}/__init__.py": _fill("hooks.py", **values),
        f"{first.package}/py.typed": "",
        **{f"{first.package}/{component.module}.py": component.fill("module.py") for component in made},
        "tests/test_components.py": _fill("test.py", **values),
    }


def _fill(template: str, **values: str) -> str:
    text = files(__name__).joinpath("templates", f"{template}.template").read_text(encoding="utf-8")
    return Template(text).substitute(values)
