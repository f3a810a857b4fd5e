"""A progress bar on stderr, where that is a terminal."""

from ..progress import track as track
