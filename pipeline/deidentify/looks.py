"""What came of looking for text in one output's pixels: what made the image, how much was looked at, where text stands.

Boxes are coordinates and nothing else: no text that was read is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.deidentify.pixel_policy import Device
from pipeline.model import Reason, Refusal


@dataclass(frozen=True, slots=True)
class Look:
    """`boxes` as text: x0,y0,x1,y1, as a rule for pixels names them."""

    device: Device
    pictures: int
    boxes: tuple[str, ...]


def look(path: Path, device: Device, words: tuple[str, ...], tick: Callable[[], None]) -> Look:
    """Look at an output. Raises Refusal where nothing can: not being able to look is not a clean bill."""
    from pipeline.deidentify import reader

    try:
        seen = reader.look(path, words, tick)
    except MemoryError:
        raise Refusal(Reason.LIMIT_EXCEEDED) from None
    except Exception:  # noqa: BLE001 - of the reader, its models, a decoder
        raise Refusal(Reason.PIXELS_NOT_READ) from None
    return Look(device, seen.frames, tuple(",".join(map(str, box)) for box in seen.boxes))


def rows(looks: Mapping[int, Look], sha256: Callable[[int], bytes]) -> Iterable[dict[str, Any]]:
    """Yield the rows of schemas.LOOKS; `looks` by index of a shard's rows."""
    for index, one in looks.items():
        yield {"source_sha256": sha256(index), **one.device._asdict(), "pictures": one.pictures,
               "boxes": list(one.boxes)}
