"""Who is it? Enrols one capture of each person and looks the others up: ``python examples/identify.py``."""

from __future__ import annotations

from pathlib import Path

import torch

import pvzoo
from pvzoo.pairs import read_samples

HERE = Path(__file__).parent


def main() -> None:
    model = pvzoo.create("stage2_spatial_nano")
    if model.untrained:
        print("the model is untrained: who comes first means nothing yet")
    samples = read_samples(HERE / "pairs.csv", model.spec.modalities)
    images = {m: model.preprocess([sample.images[m] for sample in samples]) for m in model.spec.modalities}
    with torch.inference_mode():
        embeddings = model.embed(**images)  # (N, 512), unit length
    enrolled = [number for number, sample in enumerate(samples) if sample.id.endswith("_1")]
    for number, sample in enumerate(samples):
        if number not in enrolled:
            scores = embeddings[enrolled] @ embeddings[number]
            found = samples[enrolled[int(scores.argmax())]]
            print(f"{sample.id}: most like {found.id}, score {float(scores.max()):.3f}")


if __name__ == "__main__":
    main()
