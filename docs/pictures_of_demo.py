"""Take the README's pictures from the TensorBoard logs of the newest demo run: ``python docs/pictures_of_demo.py runs``."""

import io
import sys
from pathlib import Path

from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

newest = max(Path(sys.argv[1]).rglob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime)
logged = EventAccumulator(str(newest)).Reload()
for name in ("heatmaps", "critical_paths"):
    last = logged.Images(f"relevance/{name}")[-1]
    picture = Image.open(io.BytesIO(last.encoded_image_string)).quantize(96)  # a third of the size, to the eye the same
    picture.save(Path(__file__).with_name(f"{name}.png"), optimize=True)
