"""Reading a spec file: YAML or JSON as plain data, with the line and column of every value.

The reader is strict. Tags, duplicate keys, several documents, and files that are large or expand to something large
are refused before any object is made from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..errors import Problem, SpecError

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
SUFFIXES = (".yaml", ".yml", ".json")
PathPart = str | int

_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def names_file(name: str) -> bool:
    """Whether a text names a spec file, and not something in the zoo."""
    return name.endswith(SUFFIXES)


class _Loader(_SafeLoader):  # type: ignore[misc]  # the C class is chosen at run time
    """YAML 1.1 as PyYAML reads it, except that ``1e-4`` is a number, dates are text, and tags are refused."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+"),
    list("-+.0123456789"),
)


class Source:
    """Plain data of a spec, and where each value stands.

    Attributes:
        name: What error messages call it: the file's name, or ``"spec"``.
        data: The data: mappings, lists, strings, numbers, booleans, None.
    """

    def __init__(self, name: str, data: Any, root: yaml.Node | None = None) -> None:
        self.name = name
        self.data = data
        self._root = root
        self._overridden: list[tuple[str, ...]] = []

    @classmethod
    def from_text(cls, text: str, name: str) -> Source:
        """Reads YAML, or JSON where ``name`` ends in ``.json``.

        Raises:
            SpecError: If the text is not one well-formed document of a reasonable size.
        """
        if len(text.encode()) > MAX_BYTES:
            raise _fault(name, f"the file is larger than {MAX_BYTES:,} bytes; a spec is a page of text")
        if name.endswith(".json"):
            # JSON allows tabs between tokens and nowhere else; YAML does not allow them.
            text = text.replace("\t", " ")
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                raise _fault(name, "the file is empty")
            _check(root, name)
            data = loader.construct_document(root)
        except SpecError:
            raise
        except yaml.MarkedYAMLError as error:
            message = ", ".join(filter(None, (error.context, error.problem)))
            raise _fault(name, message, error.problem_mark or error.context_mark) from error
        except yaml.YAMLError as error:
            raise _fault(name, " ".join(str(error).split())) from error
        except ValueError as error:
            # Such as a number of 5,000 digits, which Python refuses to read.
            raise _fault(name, f"a value cannot be read: {error}") from error
        except RecursionError as error:
            raise _fault(name, "the document is nested too deeply") from error
        finally:
            loader.dispose()
        return cls(name, data, root)

    @classmethod
    def from_file(cls, path: Any, name: str | None = None) -> Source:
        """Reads a file; ``path`` is a ``Path`` or a resource inside a package.

        Raises:
            SpecError: If it cannot be read, or :meth:`from_text` refuses it.
        """
        name = name or str(path)
        try:
            if isinstance(path, Path) and path.stat().st_size > MAX_BYTES:
                raise _fault(name, f"the file is larger than {MAX_BYTES:,} bytes; a spec is a page of text")
            return cls.from_text(path.read_text(encoding="utf-8"), name)
        except FileNotFoundError as error:
            raise _fault(name, "no such file") from error
        except OSError as error:
            raise _fault(name, f"cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise _fault(name, "is not UTF-8 text") from error

    def override(self, values: Mapping[str, Any]) -> None:
        """Sets fields by dotted path; a bare component name on the way becomes ``{name: ...}``."""
        for dotted, value in values.items():
            path = tuple(dotted.split("."))
            if not all(path) or not isinstance(self.data, dict):
                raise SpecError([Problem(dotted, "is not a dotted path of a field", f"override {dotted!r}")])
            try:
                self.data = _with(self.data, path, value)
            except LookupError as error:
                raise SpecError([Problem(dotted, str(error), f"override {dotted!r}")]) from error
            self._overridden.append(path)

    def remove(self, paths: Sequence[str]) -> None:
        """Leaves out fields by dotted path."""
        for dotted in paths:
            try:
                self.data = _without(self.data, tuple(dotted.split(".")))
            except LookupError as error:
                raise SpecError(
                    [Problem(dotted, f"there is nothing to leave out: {error}", f"without {dotted!r}")]
                ) from error

    def problem(self, path: Sequence[PathPart], message: str) -> Problem:
        """Makes the problem report for the value at ``path``."""
        # pydantic's ways to say "every modality" and "the key itself".
        path = [part for part in path if part not in ("*", "[key]")]
        dotted = ".".join(str(part) for part in path)
        for overridden in reversed(self._overridden):
            shared = min(len(overridden), len(path))
            if tuple(str(part) for part in path[:shared]) == overridden[:shared]:
                return Problem(dotted, message, f"override {'.'.join(overridden)!r}")
        mark = _locate(self._root, path)
        if mark is None:
            return Problem(dotted, message, self.name)
        return Problem(dotted, message, self.name, mark.line + 1, mark.column + 1)


def _with(data: Any, path: tuple[str, ...], value: Any) -> Any:
    """A copy of nested mappings with one value replaced.

    Raises:
        LookupError: If there is nothing that the path could lead into.
    """
    key, rest = path[0], path[1:]
    if isinstance(data, str):
        data = {"name": data}
    elif data is None:
        data = {}
    elif isinstance(data, Sequence):
        items: list[Any] = list(data)
        if not key.isdigit() or int(key) >= len(items):
            raise LookupError(f"{key!r} is not an index of a list of {len(items)}")
        items[int(key)] = _with(items[int(key)], rest, value) if rest else value
        return items
    elif not isinstance(data, Mapping):
        raise LookupError(f"{data!r} has no field {key!r}")
    return {**data, key: _with(data.get(key), rest, value) if rest else value}


def _without(data: Any, path: tuple[str, ...]) -> Any:
    """A copy of nested mappings without one value.

    Raises:
        LookupError: If it is not there.
    """
    if not isinstance(data, Mapping) or path[0] not in data:
        has = ", ".join(map(str, data)) if isinstance(data, Mapping) else repr(data)
        raise LookupError(f"no {path[0]!r} in {has}")
    rest = {key: value for key, value in data.items() if key != path[0]}
    return {**data, path[0]: _without(data[path[0]], path[1:])} if path[1:] else rest


def _check(root: yaml.Node, name: str) -> None:
    """Refuses tags, duplicate keys, cycles, and aliases that expand to a huge tree."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in open_nodes:
            raise _fault(name, "an alias refers to the value that it stands in", node.start_mark)
        if node.tag not in _PLAIN_TAGS:
            raise _fault(name, f"tag {node.tag!r} is not allowed; a spec is plain data", node.start_mark)
        open_nodes.add(id(node))
        total = 1
        if isinstance(node, yaml.SequenceNode):
            for child in node.value:
                total += size(child)
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, child in node.value:
                if not isinstance(key, yaml.ScalarNode) or key.tag not in _PLAIN_TAGS:
                    raise _fault(name, "a key must be plain text", key.start_mark)
                if key.value in keys and key.value != "<<":
                    raise _fault(name, f"key {key.value!r} stands twice", key.start_mark)
                keys.add(key.value)
                total += 1 + size(child)
        if total > MAX_NODES:
            raise _fault(name, f"the document expands to more than {MAX_NODES:,} values", node.start_mark)
        open_nodes.discard(id(node))
        sizes[id(node)] = total
        return total

    size(root)


_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)


def _locate(node: yaml.Node | None, path: Sequence[PathPart]) -> yaml.Mark | None:
    """The mark of the value at ``path``, or of the nearest value around it; of the key for a last mapping key."""
    if node is None:
        return None
    mark = node.start_mark
    for position, part in enumerate(path):
        if isinstance(node, yaml.MappingNode):
            match = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if match is None:
                break
            key, node = match
            last = position == len(path) - 1
            mark = key.start_mark if last and isinstance(node, yaml.CollectionNode) else node.start_mark
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            mark = node.start_mark
        else:
            break
    return mark


def _fault(name: str, message: str, mark: yaml.Mark | None = None) -> SpecError:
    position = (None, None) if mark is None else (mark.line + 1, mark.column + 1)
    return SpecError([Problem("", message, name, *position)])
