"""Pictures of what a fusion attends to (extra ``viz``).

Example::

    from pvzoo.visualization import draw_attention, look

    seen = look(model, [("a_palm.png", "a_vein.png"), ("b_palm.png", "b_vein.png")])
    draw_attention(seen).savefig("attention.svg")

Functions return matplotlib figures; nothing here touches pyplot, so that no state is shared and no window opens.
"""

from __future__ import annotations

from ..extras import missing

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise missing("matplotlib", "viz", error) from error

from .attention import Seen, look
from .figures import draw_attention, save

__all__ = ["Seen", "draw_attention", "look", "save"]
