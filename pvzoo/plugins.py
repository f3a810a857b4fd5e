"""Plugins: found from metadata, imported when named, diagnosed when broken.

Three tiers. *Metadata*: installed distributions with an entry point in group ``pvzoo`` are listed without importing
anything; disabled, incompatible and conflicting ones stop here. *Hook module*: imported when a spec names its vendor
or a list wants everything; it must not import torch. *Builder*: imported when a model is built.

A failure is a recorded state, never an exception for a host that did not ask for that plugin.
pluggy supplies markers, argument checks and per-plugin calls; its own loader is not used, because it stops at the
first broken plugin.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from typing import Any, Literal, cast

import pluggy

from . import __version__, hookspecs
from .errors import PluginError, RegistrationError, UnknownNameError, a, did_you_mean, nearest
from .hookspecs import Register
from .registry import BUILTIN, ENTRY_TYPES, Entry, Name, Origin, Registry, parse_name

GROUP = "pvzoo"
BUILTIN_MODULES = ("pvzoo.backbones", "pvzoo.alignment", "pvzoo.fusion", "pvzoo.heads", "pvzoo.data", "pvzoo.zoo")
RESERVED_VENDORS = frozenset({BUILTIN, "timm", "hf", "file"})
_VENDOR = re.compile(r"[a-z][a-z0-9-]{1,31}")

State = Literal["found", "loaded", "disabled", "incompatible", "conflict", "failed"]
Stage = Literal["metadata", "import", "hooks", "register"]


@dataclass
class Plugin:
    """A plugin and what became of it.

    Attributes:
        vendor: Entry-point name; prefix of everything that the plugin registers.
        distribution: Name of the installed distribution; empty for a plugin added in code.
        version: Its version.
        requires: What its metadata asks of pvzoo, ``">=0.1,<1"``.
        state: ``found`` (not imported yet), ``loaded``, ``disabled``, ``incompatible``, ``conflict`` or ``failed``.
        stage: Where it failed: ``metadata``, ``import``, ``hooks`` or ``register``.
        reason: Why it is not usable, in a sentence.
        error: The exception, for the traceback.
        seconds: Time that importing and registering took.
        remarks: What its author should mend although it works.
        entries: What it registered.
    """

    vendor: str
    distribution: str = ""
    version: str = ""
    module: str = ""
    location: str = ""
    requires: str = ""
    state: State = "found"
    stage: Stage | None = None
    reason: str = ""
    error: BaseException | None = None
    seconds: float = 0.0
    remarks: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    _load: Callable[[], Any] | None = None

    @property
    def label(self) -> str:
        """``acme (pvzoo-acme 0.3)``."""
        return f"{self.vendor} ({self.distribution} {self.version})" if self.distribution else self.vendor

    def problem(self) -> str:
        """One sentence that says why the plugin cannot be used."""
        verb = {"failed": f"failed at {self.stage}", "conflict": "is in conflict"}.get(self.state, f"is {self.state}")
        return f"plugin {self.label} {verb}: {self.reason}"

    def traceback(self) -> str:
        """The full traceback of the failure, or an empty string."""
        return "".join(traceback.format_exception(self.error)) if self.error else ""

    def stop(self, state: State, reason: str, stage: Stage | None = None, error: BaseException | None = None) -> None:
        self.state, self.reason, self.stage, self.error = state, reason, stage, error
        self.entries = []


def discover(disable: str = "") -> list[Plugin]:
    """Lists installed plugins from metadata alone: nothing is imported.

    Args:
        disable: Vendor or distribution names, separated by commas, or ``all``.

    Returns:
        Plugins sorted by vendor and distribution, with states ``found``, ``disabled``, ``incompatible``,
        ``conflict`` or ``failed``.
    """
    plugins: list[Plugin] = []
    first: dict[str, tuple[str, list[Plugin]]] = {}  # location and plugins by distribution
    for distribution in metadata.distributions():
        try:
            name = normalise(distribution.metadata["Name"])
            found, requirements = _read_metadata(distribution), distribution.requires or []
        except Exception:
            continue  # An interrupted installation, most often of something that is no plugin.
        location = str(distribution.locate_file(""))
        if name not in first:
            for plugin in found:
                _check_metadata(plugin, requirements, alone=len(found) == 1)
            first[name] = location, found
            plugins += found
        elif location != first[name][0]:
            plugins += _compare_copies(*first[name], location, found)
    plugins.sort(key=lambda plugin: (plugin.vendor, plugin.distribution))
    _mark_disabled(plugins, disable)
    _mark_conflicts(plugins)
    return plugins


def _read_metadata(distribution: metadata.Distribution) -> list[Plugin]:
    return [
        Plugin(
            vendor=point.name,
            distribution=distribution.metadata["Name"],
            version=distribution.version,
            module=point.value,
            location=str(distribution.locate_file("")),
            _load=point.load,
        )
        for point in distribution.entry_points.select(group=GROUP)
    ]


def _compare_copies(location: str, used: list[Plugin], other_location: str, others: list[Plugin]) -> list[Plugin]:
    """Two copies of one distribution's metadata, the first of which Python uses; returns plugins that it hides."""
    if others and not used:
        for plugin in others:
            reason = f"another copy of its metadata, in {location}, hides its entry point; remove that copy"
            plugin.stop("failed", reason, "metadata")
        return others
    if [(plugin.version, plugin.module) for plugin in used] != [(plugin.version, plugin.module) for plugin in others]:
        for plugin in used:
            plugin.remarks.append(f"shadows another copy of its metadata in {other_location}")
    return []


def _check_metadata(plugin: Plugin, requirements: Iterable[str], *, alone: bool) -> None:
    from packaging.requirements import Requirement

    fault = vendor_fault(plugin.vendor)
    if fault:
        return plugin.stop("failed", f"its entry-point name {plugin.vendor!r} {fault}", "metadata")
    if not alone:
        reason = f"{plugin.distribution} declares several entry points in group {GROUP!r}; declare one"
        return plugin.stop("failed", reason, "metadata")
    bounds = []
    for text in requirements:
        try:
            requirement = Requirement(text)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        except ValueError:
            plugin.remarks.append(f"its metadata holds a requirement that cannot be read, {text!r}")
            continue
        if applies and normalise(requirement.name) == "pvzoo":
            bounds.append(requirement.specifier)
    plugin.requires = ",".join(str(specifier) for specifier in bounds)
    for specifier in bounds:
        if not specifier.contains(__version__, prereleases=True):
            return plugin.stop("incompatible", f"it requires pvzoo{specifier}, and pvzoo is {__version__}")
    if not any(len(specifier) for specifier in bounds):
        plugin.remarks.append("its metadata does not bound pvzoo; write for example 'pvzoo>=0.1,<1'")
    return None


def vendor_fault(vendor: str) -> str:
    """Why a plugin cannot have this vendor name, or an empty string."""
    if vendor in RESERVED_VENDORS:
        return "is reserved"
    return "" if _VENDOR.fullmatch(vendor) else "is not 2 to 32 of a-z, 0-9 and '-', a letter first"


def _mark_conflicts(plugins: list[Plugin]) -> None:
    """Refuses all distributions that claim one vendor name, unless all but one are disabled."""
    enabled = [plugin for plugin in plugins if plugin.state != "disabled"]
    for plugin in enabled:
        rivals = {other.distribution: other for other in enabled if other.vendor == plugin.vendor}
        if len(rivals) > 1:
            claims = " and ".join(f"{rival.distribution} {rival.version}" for rival in rivals.values())
            reason = f"vendor name {plugin.vendor!r} is claimed by {claims}; uninstall one, "
            reason += f"or set PVZOO_DISABLE_PLUGINS={list(rivals)[-1]}"
            plugin.stop("conflict", reason)


def _mark_disabled(plugins: list[Plugin], disable: str) -> None:
    words = [normalise(word) for word in disable.split(",") if word.strip()]
    for plugin in plugins:
        names = {plugin.vendor, normalise(plugin.distribution)}
        if "all" in words or names & set(words):
            plugin.stop("disabled", "PVZOO_DISABLE_PLUGINS names it")
    known = {plugin.vendor for plugin in plugins} | {normalise(plugin.distribution) for plugin in plugins}
    for word in words:
        if word != "all" and word not in known:
            hint = did_you_mean(word, known)
            warnings.warn(f"PVZOO_DISABLE_PLUGINS names {word!r}, which is no installed plugin{hint}", stacklevel=2)


def normalise(name: str) -> str:
    """PEP 503: one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


class Host:
    """Everything that is installed: a registry a kind, and the plugins behind them.

    ``host()`` is the one that pvzoo uses. Make your own for tests and locked deployments:
    ``Host(plugins=[])`` knows the built-ins alone.

    Args:
        plugins: Installed plugins; discovered from metadata on first need if left out.
        strict: Raise the first failure of a plugin with its traceback, for authors and CI.
    """

    def __init__(self, plugins: list[Plugin] | None = None, *, strict: bool = False) -> None:
        self._manager = pluggy.PluginManager("pvzoo")
        self._manager.add_hookspecs(hookspecs)
        self._registries: dict[str, Registry[Any]] = {kind: Registry(kind) for kind in ENTRY_TYPES}
        self._plugins = plugins
        self._strict = strict
        self._lock = threading.RLock()
        self._loading: list[Plugin] = []
        for module in BUILTIN_MODULES:
            builtin = Plugin(BUILTIN, "pvzoo", __version__, module=module)
            __import__(module)
            with _staged(builtin, "register"):
                self._register(builtin, sys.modules[module], name=module)

    @property
    def plugins(self) -> list[Plugin]:
        """The plugins, sorted by vendor; asking does not import them."""
        with self._lock:
            if self._plugins is None:
                self._plugins = discover(os.environ.get("PVZOO_DISABLE_PLUGINS", ""))
            return self._plugins

    def add(self, vendor: str, plugin: object, *, distribution: str = "", version: str = "") -> Plugin:
        """Adds a plugin in code: a module or an object with ``hookimpl`` methods.

        Raises:
            PluginError: If its hooks or registrations are wrong, or the vendor name is taken.
        """
        added = Plugin(vendor, distribution, version, _load=lambda: plugin)
        if any(other.vendor == vendor for other in self.plugins):
            raise PluginError(f"vendor name {vendor!r} is taken", vendor=vendor, state="conflict")
        if vendor_fault(vendor):
            raise PluginError(f"{vendor!r} cannot be a vendor name", vendor=vendor, state="failed", stage="metadata")
        self.load(added)
        if added.state != "loaded":
            raise _plugin_error(added, added.problem())
        self.plugins.append(added)
        return added

    def load(self, plugin: Plugin) -> None:
        """Imports a found plugin and takes in what it registers, all or nothing; a failure becomes its state."""
        with self._lock:
            # A hook module that asks for a list while it is imported does not see itself.
            if plugin.state != "found" or plugin._load is None or any(plugin is other for other in self._loading):
                return
            started = time.perf_counter()
            self._loading.append(plugin)
            try:
                # What a plugin prints must not get into the JSON or YAML that a command prints.
                with redirect_stdout(sys.stderr):
                    with _staged(plugin, "import"):
                        module = plugin._load()
                    self._register(plugin, module, name=plugin.vendor)
                plugin.state = "loaded"
            except PluginError as error:
                if self._strict:
                    raise
                del error  # recorded in the plugin's state
            finally:
                self._loading.remove(plugin)
                plugin.seconds = time.perf_counter() - started

    def load_all(self) -> list[Plugin]:
        """Imports every plugin that can be; returns them all."""
        for plugin in self.plugins:
            self.load(plugin)
        return self.plugins

    def find(self, kind: str, reference: str) -> Entry:
        """Returns the entry that a name means, importing its plugin if needed and no other.

        Raises:
            UnknownNameError: No such name; with a suggestion.
            PluginError: The name's plugin is there but cannot be used; says which, at what stage, and why.
        """
        name = parse_name(reference)
        kind_name = kind.replace("_", " ")
        if name.vendor != BUILTIN:
            plugin = self._plugin(kind_name, name)
            self.load(plugin)
            if plugin.state != "loaded":
                raise _plugin_error(plugin, f"{kind_name} {reference!r}: {plugin.problem()}")
        registry = self._registries[kind]
        if name.full not in registry:
            for other, entries in self._registries.items():
                if name.full in entries:
                    message = f"{name.full!r} is {a(other.replace('_', ' '))}, not {a(kind_name)}"
                    raise UnknownNameError(message, kind=kind, name=name.full)
        return cast(Entry, registry.get(name))

    def entries(self, kind: str) -> list[Entry]:
        """All entries of a kind, those of plugins included; broken plugins contribute nothing."""
        self.load_all()
        return list(self._registries[kind])

    def builtins(self, kind: str) -> list[Entry]:
        """The entries of a kind that are registered so far, without importing a plugin."""
        return list(self._registries[kind])

    def _plugin(self, kind: str, name: Name) -> Plugin:
        for plugin in self.plugins:
            if plugin.vendor == name.vendor:
                return plugin
        near = nearest(name.vendor, [plugin.vendor for plugin in self.plugins])
        hint = f" (did you mean '{near}/...'?)" if near else ""
        message = f"{kind} {name.full!r}: no installed plugin has vendor name {name.vendor!r}{hint}; "
        message += f"'pvzoo plugins' lists them, and this Python is {sys.executable}"
        raise UnknownNameError(message, kind=kind, name=name.full, suggestions=[near] if near else [])

    def _register(self, plugin: Plugin, module: object, name: str) -> None:
        """Runs the hooks of one plugin into a list, and takes the list in only if every hook passed."""
        with _staged(plugin, "hooks"):
            try:
                self._manager.register(module, name=name)
                self._refuse_unknown_hooks(module)
            except BaseException:
                # pluggy 1.6 leaves a plugin half-registered when an implementation fails its checks.
                if self._manager.has_plugin(name):
                    self._manager.unregister(name=name)
                raise
        others = [other for other in self._manager.get_plugins() if other is not module]
        staged: list[Entry] = []
        try:
            with _staged(plugin, "register"):
                for kind, entry_type in ENTRY_TYPES.items():
                    hook = self._manager.subset_hook_caller(f"register_{kind}s", remove_plugins=others)
                    hook(register=_registrar(entry_type, plugin, staged))
                for entry in staged:
                    self._registries[entry.kind].check(entry)
        except PluginError:
            self._manager.unregister(name=name)
            raise
        for entry in staged:
            self._registries[entry.kind].add(entry)
        plugin.entries = staged

    def _refuse_unknown_hooks(self, module: object) -> None:
        known = [f"register_{kind}s" for kind in ENTRY_TYPES]
        for attribute in dir(module):
            marked = self._manager.parse_hookimpl_opts(module, attribute) is not None
            if marked and attribute not in known:
                raise RegistrationError(f"unknown hook {attribute!r}{did_you_mean(attribute, known)}")
            if attribute in known and not marked:
                raise RegistrationError(f"{attribute!r} is not marked with @pvzoo.hookimpl, so it would never run")


def _registrar(entry_type: type[Entry], plugin: Plugin, staged: list[Entry]) -> Register:
    """Makes the ``register`` that a plugin's hook receives."""
    fields = [name for name, field in entry_type.__dataclass_fields__.items() if field.init and name != "origin"]
    origin = Origin(plugin.vendor, plugin.distribution, plugin.version)

    def register(name: str, /, **traits: Any) -> None:
        prefix = "" if plugin.vendor == BUILTIN else f"{plugin.vendor}/"
        kind = entry_type.kind
        if not isinstance(name, str) or not name.startswith(prefix) or "/" in name[len(prefix) :]:
            raise RegistrationError(f"{kind} name {name!r} must start with {prefix!r} and hold no other '/'")
        for trait in traits:
            if trait not in fields:
                raise RegistrationError(f"{kind} {name!r}: register() takes no {trait!r}{did_you_mean(trait, fields)}")
        try:
            entry = entry_type(name=name, origin=origin, **traits)
        except TypeError as error:
            raise RegistrationError(f"{kind} {name!r}: {str(error).partition(') ')[2] or error}") from error
        if any((type(e), e.name, e.revision) == (entry_type, name, entry.revision) for e in staged):
            raise RegistrationError(f"{kind} {name!r} revision {entry.revision} is registered twice")
        staged.append(entry)

    return register


@contextmanager
def _staged(plugin: Plugin, stage: Stage) -> Iterator[None]:
    """Turns whatever a plugin does at one stage, ``sys.exit`` included, into its state and a ``PluginError``."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, and what extension modules raise when they panic
        plugin.stop("failed", f"{type(error).__name__}: {error}", stage, error)
        raise _plugin_error(plugin, plugin.problem()) from error


def _plugin_error(plugin: Plugin, message: str) -> PluginError:
    error = PluginError(message, vendor=plugin.vendor, state=plugin.state, stage=plugin.stage)
    error.__cause__ = plugin.error
    return error


@lru_cache(maxsize=1)
def _default_host() -> Host:
    return Host(strict=os.environ.get("PVZOO_STRICT_PLUGINS", "") not in ("", "0"))


_current: ContextVar[Host | None] = ContextVar("pvzoo_host", default=None)


def host() -> Host:
    """The host in use: built-ins, and every plugin installed in this Python, unless :func:`using` set another."""
    return _current.get() or _default_host()


@contextmanager
def using(other: Host) -> Iterator[Host]:
    """Makes ``other`` the host inside the ``with`` block, for tests and locked deployments."""
    token = _current.set(other)
    try:
        yield other
    finally:
        _current.reset(token)
