"""SynthPalm: paired palmprint and palm-vein images of identities that do not exist (extra ``data``).

Example::

    from pvzoo.synth import Generator, release

    sample = Generator(release("synthpalm-v1")).sample(subject=1, hand="left", session=1, sample=1)
    sample.palm, sample.vein, sample.crease_mask, sample.vein_mask  # uint8, (224, 224) each
"""

from .config import HANDS, RELEASES, SynthConfig, SynthError, release
from .generator import Generator, PalmSample
from .writer import generate

__all__ = ["HANDS", "RELEASES", "Generator", "PalmSample", "SynthConfig", "SynthError", "generate", "release"]
