"""How the scripts beside save what they draw: small files, for they are part of the repository."""

import io
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image


def save(picture: Figure | Image.Image, file: Path, photographs: bool = False) -> None:
    """A picture as PNG, with a palette of 256 colours, a third of the size; with ``photographs``, which need more, without.

    The palette covers all colours of the picture, also rare ones, such as the blue of a scale in red heatmaps.
    """
    if isinstance(picture, Figure):
        drawn = io.BytesIO()
        picture.savefig(drawn, dpi=110)
        picture = Image.open(drawn)
    picture = picture.convert("RGB")
    if not photographs:
        picture = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    picture.save(file, optimize=True)
    print(f"{file.name}: {file.stat().st_size / 1e3:.0f} kB", flush=True)
