"""Makes the pages of the site that come from code, and builds the site: ``python -m docs.make``.

Zensical runs no hooks of MkDocs, so what the registry, the specs, the weights manifest and the commands say is written
as Markdown before it starts. The pages are not kept in the repository. pvzoo itself imports nothing of this.
"""
