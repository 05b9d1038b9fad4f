"""Take the README's pictures from the TensorBoard logs of the newest demo run: ``python docs/pictures_of_demo.py runs``.

It needs Chromium and playwright.
"""

import io
import sys
from pathlib import Path

import pictures
import pictures_of_tab
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

newest = max(Path(sys.argv[1]).rglob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime)
logged = EventAccumulator(str(newest)).Reload()
for name in ("heatmaps", "critical_paths"):
    tags = sorted(tag for tag in logged.Tags()["images"] if tag.startswith(f"relevance/{name}"))  # one, or one of each class
    parts = [Image.open(io.BytesIO(logged.Images(tag)[-1].encoded_image_string)).convert("RGB") for tag in tags]
    picture = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    for n, part in enumerate(parts):
        picture.paste(part, (0, sum(above.height for above in parts[:n])))
    pictures.save(picture, Path(__file__).with_name(f"{name}.png"))
with pictures_of_tab.opened(newest.parent) as (page, tab):
    tab.locator(".strategies canvas").first.wait_for()
    pictures_of_tab.save(page, "shortcut")
