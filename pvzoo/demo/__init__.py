"""The main job on people that nobody has seen: drawn, enrolled, verified, identified, and shown on one page."""

SEED = 2027
"""Of the people, unless another is asked for; that of no release."""
