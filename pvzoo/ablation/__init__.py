"""Ablation: the same training with one thing changed at a time, over several seeds, compared subject by subject."""
