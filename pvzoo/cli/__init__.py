"""The ``pvzoo`` program. Commands are thin: they read arguments, call the library, and print."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the program: errors of pvzoo become one message on stderr and exit code 2, Ctrl-C 130.

    A reader that goes away, such as ``head``, ends it quietly with exit code 1; Typer sees to that.
    """
    from ..errors import PvzooError
    from .app import app

    try:
        app()
    except PvzooError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
