"""Fashion-MNIST as Debian packages it (``apt install dataset-fashion-mnist``); scikit-learn's digits where it is not."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ["T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]


@dataclass(frozen=True)
class Images:
    """Images ``(N, 1, side, side)`` in [0, 1] and their labels ``(N,)``, to train on and to test on."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    class_names: list[str]


def load(train: int, test: int, side: int = 28, folder: Path = FOLDER) -> Images:
    """The first ``train`` and ``test`` images of each part, as many as there are, padded or scaled up to ``side``."""
    if not (folder / "train-images-idx3-ubyte.gz").exists():
        print(f"no Fashion-MNIST in {folder} (apt install dataset-fashion-mnist): scikit-learn's digits instead")
        digits = load_digits()
        images = F.interpolate(torch.tensor(digits.images[:, None] / 16).float(), size=(side, side), mode="bilinear")
        labels = torch.tensor(digits.target)
        held_out = min(test, 360)
        parts = (images[:-360][:train], labels[:-360][:train]), (images[-held_out:], labels[-held_out:])
        return Images(*parts, class_names=[str(digit) for digit in range(10)])
    return Images(
        _part(folder, "train", train, side),
        _part(folder, "t10k", test, side),
        class_names=CLASSES,
    )


def _part(folder: Path, part: str, n: int, side: int) -> tuple[Tensor, Tensor]:
    images = _read(folder / f"{part}-images-idx3-ubyte.gz", header=16).view(-1, 1, 28, 28)[:n].float() / 255
    labels = _read(folder / f"{part}-labels-idx1-ubyte.gz", header=8)[:n].long()
    return F.pad(images, [(side - 28) // 2] * 4), labels


def _read(path: Path, header: int) -> Tensor:
    with gzip.open(path) as file:
        return torch.frombuffer(bytearray(file.read()[header:]), dtype=torch.uint8)
