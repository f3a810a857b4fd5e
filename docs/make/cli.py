"""The command line, from the commands themselves."""

from __future__ import annotations

from typing import Any

import typer

from pvzoo.cli.app import app

from .markdown import Pages, code, rich, table


def pages() -> Pages:
    root: Any = typer.main.get_command(app)
    parts = [_command(command, f"pvzoo {name}", 2) for name, command in sorted(root.commands.items())]
    intro = (
        "Made from the program's own help. Errors go to standard error, and the exit status is 2 then; 1 means that a"
    )
    intro += " check has found something, 0 that all is well. Into a pipe, tables are lines with tabs."
    yield "cli.md", f"# Command line\n\n{intro}\n\n" + "\n".join(parts)


def _command(command: Any, path: str, level: int) -> str:
    arguments = [param for param in command.params if param.param_type_name == "argument" and not param.hidden]
    options = [param for param in command.params if param.param_type_name == "option" and not param.hidden]
    nested = getattr(command, "commands", {})
    usage = " ".join([path, *(_usage(param) for param in arguments), *(["COMMAND"] if nested else [])])
    parts = [f"{'#' * level} {path}", f"```text\n{usage} [OPTIONS]\n```", rich(command.help or "")]
    rows = [
        *((code(_usage(param)), rich(param.help or ""), _default(param)) for param in arguments),
        *((_flags(param), rich(param.help or ""), _default(param)) for param in options if param.name != "help"),
    ]
    if rows:
        parts.append(table(["", "meaning", "default"], rows))
    parts += [_command(each, f"{path} {name}", level + 1) for name, each in sorted(nested.items())]
    return "\n\n".join(parts) + "\n"


def _usage(param: Any) -> str:
    name = (param.metavar or param.name or "").upper()
    many = "..." if param.nargs == -1 or param.multiple else ""
    return f"{name}{many}" if param.required else f"[{name}{many}]"


def _flags(param: Any) -> str:
    names = [*param.opts, *param.secondary_opts]
    value = "" if getattr(param, "is_flag", False) else f" {param.metavar or _kind(param)}"
    return ", ".join(code(f"{name}{value}") for name in names)


def _kind(param: Any) -> str:
    text = getattr(param.type_descriptor.annotation, "__name__", "value")
    return {"str": "TEXT", "int": "INTEGER", "float": "NUMBER", "Path": "PATH"}.get(text, text.upper())


def _default(param: Any) -> str:
    if param.required:
        return "required"
    if isinstance(param.show_default, str):
        return param.show_default
    if param.default in (None, False, ()) or callable(param.default) or not param.show_default:
        return ""
    return code(param.default)
