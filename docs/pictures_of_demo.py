"""Take the README's pictures from the TensorBoard logs of the newest demo run: ``python docs/pictures_of_demo.py runs``.

It needs Chromium and playwright.
"""

import io
import sys
from pathlib import Path

import pictures_of_tab
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

newest = max(Path(sys.argv[1]).rglob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime)
logged = EventAccumulator(str(newest)).Reload()
for name in ("heatmaps", "critical_paths"):
    last = logged.Images(f"relevance/{name}")[-1]
    picture = Image.open(io.BytesIO(last.encoded_image_string)).quantize(96)  # a third of the size, to the eye the same
    picture.save(Path(__file__).with_name(f"{name}.png"), optimize=True)
with pictures_of_tab.opened(newest.parent) as (page, tab):
    tab.locator(".strategies canvas").first.wait_for()
    pictures_of_tab.save(page, "shortcut")
