"""Explain a vision transformer by its attention's values, and by queries and keys too (AttnLRP): ``python examples/vit.py``.

torchvision's ViT, small, is trained on scikit-learn's digits. Relevance that does not reach the pixels stays in the class
token, the position table and biases: it is measured where it stays, and all of it adds up to the logit.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from tqdm.auto import trange

from lrp_lightning import Composite, Epsilon, Flat, Gamma, SelectiveLRP, TopK, masked_forward
from lrp_lightning.drawing import draw_contact_sheet
from lrp_lightning.selection import random_masks

SIDE = 16
WAYS = {  # the first layer's rule spreads a patch's relevance evenly over its pixels: a patch is what attention sees
    "attention by values": Composite(Epsilon(), linear=Gamma(), first=Flat()),
    "AttnLRP": Composite(Epsilon(), linear=Gamma(), first=Flat(), attention="attnlrp"),
}


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    steps = epochs * (len(images) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in trange(steps, desc="training", unit="batch", leave=False):
        batch = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        F.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("vit.png"), help="where the picture goes")
    options = parser.parse_args()
    torch.manual_seed(0)
    digits = load_digits()  # 1,797 images of 8 x 8, values 0 to 16
    images = F.interpolate(torch.tensor(digits.images[:, None] / 16).float(), size=(SIDE, SIDE), mode="bilinear")
    images, labels = images.expand(-1, 3, -1, -1), torch.tensor(digits.target)
    model: nn.Module = VisionTransformer(
        image_size=SIDE, patch_size=2, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10
    )
    train(model, images[:1437], labels[:1437], options.epochs)
    x, y, logits = images[1437:], labels[1437:], model(images[1437:]).detach()
    print(f"accuracy on {len(x)} images held out {(logits.argmax(1) == y).float().mean():.3f}\n")

    shown = torch.stack([x[(y == digit) & (logits.argmax(1) == y)][0] for digit in range(0, 10, 2)])
    heatmaps = {}
    for name, composite in WAYS.items():
        trace = SelectiveLRP(model, composite).trace(shown, target=lambda f: f.argmax(1))
        assert isinstance(trace.inputs, Tensor)  # one input, one tensor
        heatmaps[name] = trace.inputs
        reached = (trace.inputs.sum((1, 2, 3)) / trace.explained).mean()
        print(
            f"{name}: {reached:.0%} of the logit reaches the pixels; conservation error {trace.conservation_error.max():.0e}"
        )
        stayed = {where: (r / trace.explained).mean().item() for where, r in trace.absorbed.items()}
        for where in sorted(stayed, key=lambda where: -abs(stayed[where]))[:4]:
            print(f"    {stayed[where]:>6.1%} stays in {where}")
        masks = SelectiveLRP(model, composite, TopK(0.3)).trace(x, target=lambda f: f.argmax(1)).masks
        for which, of in (("critical", masks), ("random", random_masks(masks, torch.Generator().manual_seed(0)))):
            survive = (masked_forward(model, x, of).argmax(1) == logits.argmax(1)).float().mean()
            print(f"    {survive:.3f} of predictions survive with {which} 30 % of the neurons of each layer")
    draw_contact_sheet(shown, torch.stack([*heatmaps.values()]), columns=[*heatmaps], overlay=True).savefig(options.out)
    print(f"drawn to {options.out}")


if __name__ == "__main__":
    main()
