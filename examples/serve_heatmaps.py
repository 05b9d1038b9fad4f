"""Serve heatmaps over HTTP from an exported file, with neither lrp_lightning nor the model's code.

python -m lrp_lightning export --model torchvision:resnet18 --out explain.onnx
python examples/serve_heatmaps.py explain.onnx
curl --data-binary @photo.jpg localhost:8000/heatmap.png > heatmap.png
curl --data-binary @photo.jpg localhost:8000/explanation.json
"""

import argparse
import io
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image


def load(path: str) -> tuple[Any, dict[str, Any]]:
    """What computes output, relevance and masks of images, and what the file says of itself."""
    if path.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        said = session.get_modelmeta().custom_metadata_map["explanation.json"]
        return lambda x: session.run(None, {"images": x}), json.loads(said)
    import torch

    extra = {"explanation.json": ""}
    program = torch.export.load(path, extra_files=extra).module()

    def explain(x: np.ndarray) -> list[torch.Tensor]:
        output, relevance, masks = program(torch.from_numpy(x))
        return [output, relevance, *masks.values()]

    return explain, json.loads(extra["explanation.json"])


def prepare(picture: Image.Image, how: dict[str, Any]) -> np.ndarray:
    """``(C, H, W)``, as the model wants an image: resized, its middle, normalised."""
    wide, high = (how["resize"] * side // min(picture.size) for side in picture.size)
    picture = picture.convert("RGB").convert("L" if how["channels"] == "grey" else "RGB")
    picture = picture.resize((wide, high), Image.Resampling[how["interpolation"].upper()])
    height, width = how["crop"]
    left, top = round((wide - width) / 2), round((high - height) / 2)
    values = np.array(picture.crop((left, top, left + width, top + height)), np.float32).reshape(height, width, -1)
    return ((values / 255 - np.float32(how["mean"])) / np.float32(how["std"])).transpose(2, 0, 1)


def png(relevance: np.ndarray) -> bytes:
    """Red supports the class, blue opposes it; white is no relevance."""
    share, file = relevance / max(abs(relevance).max(), 1e-30), io.BytesIO()
    colours = np.stack([1 + np.minimum(share, 0), 1 - abs(share), 1 - np.maximum(share, 0)], -1)
    Image.fromarray((255 * colours).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


class Heatmaps(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        if self.path not in ("/heatmap.png", "/explanation.json") or not 0 < size < 2e7:
            return self.send_error(400, "post an image of up to 20 MB to /heatmap.png or /explanation.json")
        try:
            image = prepare(Image.open(io.BytesIO(self.rfile.read(size))), about["images"])
        except (OSError, Image.DecompressionBombError):
            return self.send_error(400, "this is not an image that Pillow can read")
        samples = 1 if about["dynamic_batch"] else about["shapes"][0][0]
        output, relevance, *masks = (np.asarray(part[0]) for part in explain(np.stack([image] * samples)))
        heatmap, best = relevance.sum(0), int(output.argmax())
        found = {
            "predicted": about["classes"][best] if about["classes"] else best,
            "logit": float(output[best]),
            "relevance": float(heatmap.sum()),
            "heatmap": heatmap.tolist(),
            "critical": {name: np.flatnonzero(m).tolist() for name, m in zip(about["layers"], masks, strict=True)},
        }
        drawn = self.path == "/heatmap.png"
        self.send_response(200)
        self.send_header("Content-Type", "image/png" if drawn else "application/json")
        self.end_headers()
        self.wfile.write(png(heatmap) if drawn else json.dumps(found).encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve heatmaps over HTTP from an exported file.")
    parser.add_argument("file", help="what python -m lrp_lightning export wrote")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free (default: %(default)s)")
    options = parser.parse_args()
    explain, about = load(options.file)
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Heatmaps)
    print(f"serving {options.file} on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
