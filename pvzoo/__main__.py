"""``python -m pvzoo``: the same as the ``pvzoo`` program."""

from .cli import main

main()
