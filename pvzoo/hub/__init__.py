"""Pretrained weights: from a name to files on this machine that are known to be the right ones, and to the Hub.

``pvzoo.create("stage2_spatial", pretrained=True)`` goes this way::

    name, tag        sources.find        the manifest's entry: files, digests, repository, revision
      -> files       packages, download  installed packages, the cache of the Hugging Face Hub, the Hub
      -> verified    digests             size and SHA-256 of each, or IntegrityError
      -> model       pvzoo.weights       tensors, strictly

and the other way: ``cards`` (what a card must say), ``publish`` (one commit, then a tag). ``verify`` computes an
entry of the manifest anew and compares; ``cache`` says what is on this machine.
"""
