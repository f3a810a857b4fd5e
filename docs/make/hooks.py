"""The hooks of plugins with their exact signatures, and the class whose fields are what ``register`` takes."""

from __future__ import annotations

import inspect
from types import FunctionType

from pvzoo import hookspecs
from pvzoo.registry import ENTRY_TYPES, Entry

from .markdown import Pages, code, prose, table


def pages() -> Pages:
    parts = [_hook(kind, entry_type) for kind, entry_type in ENTRY_TYPES.items()]
    intro = (
        "Each hook is a function in the hook module of a [plugin](plugins.md), marked with `@pvzoo.hookimpl`. It is"
        " called once, with `register`, which takes the name and, as keyword arguments, the fields of the kind's class."
    )
    yield "hooks.md", f"# Hooks\n\n{intro}\n\n" + "\n".join(parts)


def _hook(kind: str, entry_type: type[Entry]) -> str:
    hook = getattr(hookspecs, f"register_{kind}s")
    fields = inspect.signature(entry_type).parameters
    rows = []
    for name, field in fields.items():
        if name in ("name", "origin"):
            continue
        default = "required" if field.default is inspect.Parameter.empty else _default(field.default)
        rows.append((code(name), code(str(field.annotation)), default))
    documented = inspect.getdoc(entry_type) or ""
    return (
        f"## register_{kind}s\n\n```text\n{signature(hook)}\n```\n\n{prose(hook.__doc__)}\n\n"
        f"{prose(documented)}\n\n{table(['keyword', 'type', 'default'], rows)}\n{_attributes(entry_type)}\n"
    )


def signature(hook: FunctionType) -> str:
    """``register_heads(register: Register) -> None``, as it stands in the code."""
    return f"{hook.__name__}{inspect.signature(hook)}".replace("'", "")


def _default(value: object) -> str:
    return "optional" if callable(value) or "factory" in str(value) else code(repr(value))


def _attributes(entry_type: type[Entry]) -> str:
    """The meaning of the fields, from the Attributes sections of the class and of what it is made of."""
    lines: list[str] = []
    for owner in reversed(entry_type.__mro__):
        text = inspect.cleandoc(owner.__doc__ or "")
        if issubclass(owner, Entry) and "Attributes:\n" in text:
            section = text.split("Attributes:\n")[1]
            for line in section.splitlines():
                if line.startswith("    ") and not line.startswith("     ") and ": " in line:
                    name, meaning = line.strip().split(": ", 1)
                    lines.append(f"* `{name}`: {meaning}")
                elif line.strip():
                    lines[-1] += f" {line.strip()}"
    return "\n".join(prose(line) for line in lines) + "\n"
