"""``python -m docs.make``, from the root of the repository: all pages that code makes, then the site, strictly."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from pvzoo.diagram import COLOURS

from . import api, cli, components, hooks, results, zoo
from .markdown import write

DOCS = Path("docs")
MADE = ("zoo", "components", "api", "make/parts")


def pages() -> None:
    """Writes every page, part and style sheet that code makes; what was made before is removed."""
    for folder in MADE:
        shutil.rmtree(DOCS / folder, ignore_errors=True)
    for maker in (zoo, components, api, cli, hooks, results):
        for name, text in maker.pages():
            write(DOCS / name, text)
    schemes = {"default": COLOURS["light"], "slate": COLOURS["dark"]}
    rules = [f'[data-md-color-scheme="{scheme}"] .pvzoo-diagram {{ {colours} }}' for scheme, colours in schemes.items()]
    write(DOCS / "assets/diagram.css", "\n".join(rules) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.make", description="Builds the documentation into site/.")
    parser.add_argument("--pages", action="store_true", help="make the pages alone, and build nothing")
    parser.add_argument("--serve", action="store_true", help="serve the site on this machine, and follow changes")
    options = parser.parse_args()
    if not Path("mkdocs.yml").is_file():
        parser.error("there is no mkdocs.yml here; run it in the root of the repository")
    pages()
    if options.pages:
        return 0
    command = ["serve"] if options.serve else ["build", "--strict", "--clean"]
    return subprocess.run([sys.executable, "-m", "zensical", *command], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
