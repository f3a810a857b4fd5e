"""Losses beside classification, on the embedding: what pulls an identity together and pushes others away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..errors import PvzooError
from .recipe import Losses

TEMPERATURE = 0.07  # of the supervised contrastive loss, as in Khosla et al.
TRIPLET_MARGIN = 0.2


def auxiliary(
    weights: Losses, embedding: Tensor, labels: Tensor, alone: Callable[[], tuple[Tensor, Tensor] | None]
) -> dict[str, Tensor]:
    """The weighted losses that a recipe asks for, by name.

    Args:
        weights: The recipe's; 0 leaves one out.
        embedding: (N, D).
        labels: (N,).
        alone: Gives the embeddings of two modalities, each alone, of the samples that have both; ``None`` if none has.
    """
    found: dict[str, Tensor] = {}
    if weights.supcon:
        found["supcon"] = weights.supcon * _metric_losses().SupConLoss(temperature=TEMPERATURE)(
            embedding.float(), labels
        )
    if weights.triplet:
        found["triplet"] = weights.triplet * _metric_losses().TripletMarginLoss(margin=TRIPLET_MARGIN)(
            embedding.float(), labels
        )
    if weights.consistency:
        both = alone()
        if both is not None:
            found["consistency"] = weights.consistency * (1 - F.cosine_similarity(*both)).mean()
    return found


def _metric_losses() -> Any:
    try:
        from pytorch_metric_learning import losses
    except ImportError as error:
        message = "losses supcon and triplet need pytorch-metric-learning: pip install 'pvzoo[train]'"
        raise PvzooError(message) from error
    return losses
