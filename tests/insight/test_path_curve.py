"""What paths' neurons do alone and what all but them do: against doing it by hand."""

from __future__ import annotations

import pytest
import torch
from small_networks import mlp
from torch import Tensor, nn

from lrp_lightning import Path, SelectiveLRP, build_graph, k_best_paths, masked_forward, path_curve
from lrp_lightning.errors import GraphError, SelectionError, TargetError

CLASSES = (1, 2)  # those that this network predicts


@pytest.fixture(scope="module")
def found() -> tuple[nn.Module, dict[int, list[Path]], Tensor]:
    torch.manual_seed(0)
    model = mlp(5, 12, 10, 3)
    x, paths = torch.randn(300, 5), {}
    for c in CLASSES:
        trace = SelectiveLRP(model).trace(x[model(x).argmax(1) == c], target=c, edges=True)
        paths[c] = k_best_paths(build_graph(trace), k=40)
    return model, paths, torch.randn(80, 5)


@pytest.mark.parametrize("replacement", ["zero", "mean"])
def test_is_what_it_is_by_hand(found: tuple[nn.Module, dict[int, list[Path]], Tensor], replacement: str) -> None:
    model, paths, x = found
    curve = path_curve(model, paths, x, [1, 7, 40], replacement)  # type: ignore[arg-type]
    whole = model(x).detach()
    for i, k in enumerate((1, 7, 40)):
        own = {}
        for c in CLASSES:
            masks = {layer: torch.zeros(n, dtype=torch.bool) for layer, n in (("0", 12), ("2", 10))}
            for path in paths[c][:k]:
                for layer, neuron in path.nodes:
                    if layer in masks:
                        masks[layer][neuron] = True
            assert curve.neurons[i, c] == sum(m.sum() for m in masks.values())
            alone = masked_forward(model, x, masks, replacement=replacement)  # type: ignore[arg-type]
            others = masked_forward(model, x, masks, False, None, replacement)  # type: ignore[arg-type]
            here = whole.argmax(1) == c
            assert curve.kept[i, c] == (alone[here].argmax(1) == c).float().mean()
            assert curve.without[i, c] == pytest.approx((others[here].argmax(1) == c).float().mean())
            own[c] = alone[:, c]
        won = []
        for n in range(len(x)):
            first, second = whole[n].argsort(descending=True)[:2].tolist()
            if {first, second} == set(CLASSES):
                won.append(float(own[first][n] > own[second][n]))
        assert curve.contest[i] == pytest.approx(sum(won) / len(won))
    [left] = {0, 1, 2} - set(CLASSES)
    assert bool(curve.kept[:, left].isnan().all())
    assert curve.sufficient(0.0) == dict.fromkeys(sorted(CLASSES), 1)
    assert curve.sufficient(1.1) == dict.fromkeys(sorted(CLASSES))
    assert "40 paths: kept" in repr(curve)


def test_numbers_of_paths_up_to_the_most(found: tuple[nn.Module, dict[int, list[Path]], Tensor]) -> None:
    model, paths, x = found
    assert path_curve(model, paths, x[:9]).counts == [1, 2, 5, 10, 20]


def test_bad_arguments(found: tuple[nn.Module, dict[int, list[Path]], Tensor]) -> None:
    model, paths, x = found
    with pytest.raises(GraphError, match="paths is empty for every class"):
        path_curve(model, {0: []}, x)
    with pytest.raises(GraphError, match=r"whole numbers >= 1, got \[0\]"):
        path_curve(model, paths, x, [0])
    with pytest.raises(TargetError, match="no class 3; the model has classes 0 to 2"):
        path_curve(model, {3: paths[1]}, x)
    with pytest.raises(SelectionError, match="'zero' or 'mean'"):
        path_curve(model, paths, x, replacement="noise")  # type: ignore[arg-type]
