"""Find the channels that a classifier's decisions rest on, and prove it by switching off the rest.

``python examples/critical_neurons.py`` trains a narrow VGG16-BN on Fashion-MNIST (Debian package dataset-fashion-mnist;
scikit-learn's digits where it is missing), selects by several ways, and draws what is retained at each budget.
"""

import argparse
from pathlib import Path

import fashion_mnist
import small_vgg
import torch

from lrp_lightning import Epsilon, MinError, SelectiveLRP, TopK, masked_forward
from lrp_lightning.drawing import draw_curves
from lrp_lightning.metrics import CriticalNeuronAccuracy, RandomControl, SelectionError
from lrp_lightning.selection import Selection

BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=30_000, help="to train on")
    parser.add_argument("--samples", type=int, default=100, help="test images whose neurons are selected")
    parser.add_argument("--passes", type=int, default=25, help="of MinError")
    parser.add_argument("--out", type=Path, default=Path("critical_neurons.png"), help="where the picture goes")
    options = parser.parse_args()

    torch.manual_seed(0)
    data = fashion_mnist.load(options.images, options.samples, side=32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = small_vgg.train(small_vgg.small_vgg16(small_vgg.NARROW), *data.train, epochs=2, seed=0, device=device)
    x, labels = (part.to(device) for part in data.test)
    with torch.no_grad():
        logits = model(x)
    print(f"accuracy on {len(x)} test images {(logits.argmax(1) == labels).float().mean():.3f}\n")

    retained: dict[str, list[float]] = {"random": [], "TopK": [], "MinError": []}
    print("share of channels kept    predictions retained                 SMAPE")
    print("in each layer             random     TopK   MinError      TopK   MinError")
    for budget in BUDGETS:
        errors = []
        ways: dict[str, Selection] = {"TopK": TopK(budget), "MinError": MinError("smape", budget, options.passes)}
        for name, selection in ways.items():
            masks = SelectiveLRP(model, Epsilon(), selection).trace(x, target=lambda f: f.argmax(1)).masks
            survive, error, control = (
                CriticalNeuronAccuracy().to(device),
                SelectionError("smape").to(device),
                RandomControl(),
            )
            kept = masked_forward(model, x, masks)
            survive.update(kept, logits)
            error.update(kept, logits)
            retained[name].append(survive.compute().item())
            errors.append(error.compute().item())
        control.to(device).update(masked_forward(model, x, control.random_sets(masks)), logits)
        retained["random"].append(control.compute().item())
        shares = [retained[name][-1] for name in ("random", "TopK", "MinError")]
        print("{:13.0%} {:18.3f} {:8.3f} {:10.3f} {:9.3f} {:10.3f}".format(budget, *shares, *errors))

    figure = draw_curves(
        retained, BUDGETS, xlabel="share of channels kept in each layer", ylabel="predictions retained", static=True
    )
    figure.savefig(options.out)
    print(f"\ndrawn to {options.out}")


if __name__ == "__main__":
    main()
