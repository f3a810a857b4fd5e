"""Weights as a package: measured, packed, and trained again to see whether the same comes out.

``pack`` turns saved models into a package of weights with a manifest that says everything about them; ``reproduce``
goes the other way, from an entry of a manifest to a training and a comparison with its figures.
"""
