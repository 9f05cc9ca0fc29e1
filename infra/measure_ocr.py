"""`python -m infra.measure_ocr`: what share of names rendered into pixels the reader misses, by size and contrast, and
what a picture costs. Prints the tables of docs/pixels.md. Names are made up; the letters are Pillow's default font.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.deidentify import reader

SIZES = (8, 12, 16, 24, 48)
CONTRASTS = (15, 30, 60, 120)       # greys of 256 between text and ground, lighter and darker
NAMES = ("QUILLFEATHER", "Winterbottom H", "OAKENSHAW^P", "DOB 17/03/1961", "LID4471902", "DOE, JOHN")
SIDE = 700


def picture(ground: str, px: int, contrast: int, turned: int, seed: int) -> tuple[Any, Any]:
    """Return greys with the names in them, and where each stands (a mask per name)."""
    random = np.random.default_rng(seed)
    noise = random.normal(0, 1, (SIDE, SIDE))
    if ground == "tissue":          # soft blobs and grain, as a mammogram or a sonogram has them
        for step, much in ((64, 12), (16, 8), (4, 5)):
            coarse = random.normal(0, 1, (SIDE // step + 2, SIDE // step + 2)).astype(np.float32)
            blob = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            noise += much * np.asarray(blob)
        noise += random.normal(0, 4, (SIDE, SIDE))
    whole = 128 + noise
    marks = []
    font = ImageFont.load_default(px)
    for n, name in enumerate(NAMES):
        image = Image.new("L", (SIDE, SIDE))
        ImageDraw.Draw(image).text((40 + 25 * (n % 3), 30 + 110 * n), name, fill=255, font=font)
        letters = np.asarray(image, np.float32) / 255
        whole = whole + letters * contrast * (1 if n % 2 else -1)
        marks.append(np.rot90(letters > 0.3, turned))
    return np.rot90(np.clip(whole, 0, 255).astype(np.uint8), turned), marks


def main() -> None:
    cost = []
    print("| ground | height, px | " + " | ".join(f"contrast {c}" for c in CONTRASTS) + " |")
    print("| --- " * (2 + len(CONTRASTS)) + "|")
    for ground in ("plain", "tissue"):
        for px in SIZES:
            cells = []
            for contrast in CONTRASTS:
                missed = total = 0
                for turned in (0, 1):
                    greys, marks = picture(ground, px, contrast, turned, px * 1000 + contrast)
                    begin = time.process_time()
                    covered = np.zeros(greys.shape, bool)
                    for x0, y0, x1, y1 in reader.read(greys):
                        covered[y0:y1, x0:x1] = True
                    cost.append(time.process_time() - begin)
                    total += len(marks)
                    missed += sum(covered[mark].mean() < 0.5 for mark in marks)
                cells.append(f"{missed} of {total}")
            print(f"| {ground} | {px} | " + " | ".join(cells) + " |", flush=True)
    print(f"\n{len(cost)} pictures of {SIDE} x {SIDE}: {np.median(cost):.2f} s of CPU each (median), one thread.")


if __name__ == "__main__":
    sys.exit(main())
