"""Shared by tests: images of a SynthPalm data set, and the error rate of a matrix of scores."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from pvzoo.evaluation import metrics
from pvzoo.synth import Generator, SynthConfig


def eer(genuine: Any, impostor: Any) -> float:
    """Equal error rate; see :func:`pvzoo.evaluation.metrics.eer`."""
    return metrics.eer(metrics.tally(genuine, impostor)).value


def split_scores(scores: Any, labels: Any) -> tuple[Any, Any]:
    """Genuine and impostor scores of all against all, each pair once."""
    first, second = np.triu_indices(len(labels), 1)
    same = np.asarray(labels)[first] == np.asarray(labels)[second]
    return scores[first, second][same], scores[first, second][~same]


def draw_all(config: SynthConfig) -> tuple[dict[str, list[Any]], list[int]]:
    """Every palm and vein image of a data set, and the number of the hand of each."""
    generator = Generator(config)
    images: dict[str, list[Any]] = {"palm": [], "vein": []}
    labels = []
    for number, identity in enumerate(config.identities()):
        for key in config.keys(*identity):
            sample = generator.sample(*key)
            images["palm"].append(sample.palm)
            images["vein"].append(sample.vein)
            labels.append(number)
    return images, labels


def low_pass_scores(images: list[Any]) -> Any:
    """Correlation of images of which a blur, sigma 20 px at 224, leaves tone and background alone."""
    sigma = 20 * len(images[0]) / 224
    small = [
        cv2.resize(cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma), (28, 28)).ravel() for image in images
    ]
    flat = np.stack(small)
    flat = flat - flat.mean(1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    return flat @ flat.T
