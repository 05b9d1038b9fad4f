"""How well mislabelled samples are found: writes ``benchmarks/mislabelled.md``.

``python benchmarks/mislabelled.py --cache FOLDER`` trains the networks that the folder lacks, and writes the table.
``--only-table`` only writes. cleanlab is included if it is installed.

Small convolutional networks are trained on 12,000 images of Fashion-MNIST (scikit-learn's digits where that is not
installed). 5 % of them have the label of another class, and so have 5 % of 3,000 test images. The task is to find the wrong
labels of the test images. Each method ranks all test images; *average precision* is that of the ranking.

*odd samples* ranks the odd samples of ``find_strategies`` by margin, followed by all other samples, also by margin; the
last line gives precision and recall of the list of odd samples. *relevance: unlikely in its class* ranks by the likelihood
of a sample's relevance for its label among the samples of that class. *relevance: likelier in another* subtracts the
likelihood of its relevance for the other class with the highest logit, among the samples of that class.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from lrp_lightning import SelectiveLRP, find_strategies
from lrp_lightning.insight.clusters import Clusters
from lrp_lightning.insight.strategies import relevance_of

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import fashion_mnist
import shortcuts
import small_vgg

HERE = Path(__file__).parent
NETWORKS, FLIPPED, AT_ONCE = 3, 0.05, 250


def flipped(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Labels, some of which are replaced by another class's, and which these are."""
    wrong = torch.rand(len(labels), generator=generator) < FLIPPED
    other = (labels + torch.randint(1, 10, labels.shape, generator=generator)) % 10
    return torch.where(wrong, other, labels), wrong


def likelihood(lrp: SelectiveLRP, x: Tensor, of: Tensor, labels: Tensor) -> Tensor:
    """``(N,)``: how likely each sample's relevance for class ``of`` is among that of the samples with that label."""
    found = torch.zeros(len(x), dtype=torch.double)

    def features(samples: Tensor, c: int) -> np.ndarray:
        return relevance_of(lrp, samples, c, samples.device).features("neurons")

    for c in range(10):
        clusters = Clusters(features(x[labels == c], c), 5, seed=0)
        if (of == c).any():
            found[of == c] = torch.from_numpy(clusters.likelihood(features(x[of == c], c)))
    return found


def measure(number: int, options: argparse.Namespace) -> None:
    """Train one network and rank its test images, if that is not in the cache."""
    file = options.cache / f"mislabelled_{number}.json"
    if file.exists():
        return
    data = fashion_mnist.load(shortcuts.TRAINED_ON, shortcuts.LOOKED_AT, side=shortcuts.SIDE)
    generator = torch.Generator().manual_seed(number)
    (images, targets), (x, labels) = data.train, data.test
    noisy, _ = flipped(targets, generator)
    given, wrong = flipped(labels, generator)
    torch.manual_seed(number)
    model = small_vgg.train(shortcuts.network(), images, noisy, epochs=3, seed=number, learning_rate=0.05)
    with torch.no_grad():
        logits = torch.cat([model(part) for part in x.split(AT_ONCE)])
    chances = logits.softmax(1)
    other = logits.scatter(1, given[:, None], -torch.inf).argmax(1)
    margin = (logits.gather(1, other[:, None]) - logits.gather(1, given[:, None]))[:, 0]
    batches = list(zip(x.split(AT_ONCE), given.split(AT_ONCE), strict=True))
    odd = [sample.sample for sample in find_strategies(model, batches, samples_per_class=len(x), progress=False).odd]
    listed = torch.zeros(len(x), dtype=torch.bool)
    listed[odd] = True
    lrp = SelectiveLRP(model)
    own = likelihood(lrp, x, given, given)
    rankings = {
        "loss": -chances[torch.arange(len(x)), given].log(),
        "odd samples, by margin": margin + 1e3 * listed,
        "relevance: unlikely in its class": -own,
        "relevance: likelier in another": likelihood(lrp, x, other, given) - own,
        **cleanlab_rankings(chances, given),
    }
    result = {
        "accuracy": (logits.argmax(1) == labels).float().mean().item(),
        "rankings": {name: float(average_precision_score(wrong, scores)) for name, scores in rankings.items()},
        "listed": len(odd),
        **shortcuts.rates(listed, wrong),
    }
    file.write_text(json.dumps(result))
    print(f"{number}: {result}", flush=True)


def cleanlab_rankings(chances: Tensor, given: Tensor) -> dict[str, Any]:
    """The samples found by confident learning (Northcutt et al. 2021), if it is installed."""
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return {}
    methods = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
    return {
        f"cleanlab, {method.replace('_', ' ')}": -get_label_quality_scores(given.numpy(), chances.numpy(), method=method)
        for method in methods
    }


def write(cache: Path) -> None:
    """The table of the results in the cache."""
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    files = [cache / f"mislabelled_{n}.json" for n in range(NETWORKS)]
    results = [json.loads(file.read_text()) for file in files if file.exists()]
    lines = ["# Mislabelled samples", "", about, "", "Made by `python benchmarks/mislabelled.py`.", ""]
    lines += [f"| ranking | average precision, {len(results)} networks |", "| --- | ---: |"]
    for name in results[0]["rankings"]:
        figures = [f"{r['rankings'][name]:.3f}" for r in results if name in r["rankings"]]
        lines.append(f"| {name} | {', '.join(figures)} |")
    lists = "; ".join(f"{r['listed']} samples, precision {r['precision']:.2f}, recall {r['recall']:.2f}" for r in results)
    accuracies = ", ".join(f"{r['accuracy']:.3f}" for r in results)
    lines += ["", f"The list of odd samples: {lists}. Accuracy of the networks {accuracies}."]
    (HERE / "mislabelled.md").write_text("\n".join([*lines, ""]))


def main() -> None:
    options = shortcuts.asked(shortcuts.parser(__doc__, "runs/mislabelled"))
    for number in () if options.only_table else range(NETWORKS):
        measure(number, options)
    write(options.cache)


if __name__ == "__main__":
    main()
