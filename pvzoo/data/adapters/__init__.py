"""The layouts of published data sets, one family a file."""
