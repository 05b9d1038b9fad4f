"""VGG16 with batch norm for small images, at its full width and a narrow one, and how it is trained and judged."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import VGG, make_layers
from tqdm.auto import trange

FULL, NARROW = (64, 128, 256, 512, 512), (32, 48, 64, 96, 96)


def small_vgg16(widths: tuple[int, ...] = FULL, classes: int = 10) -> nn.Module:
    """VGG16 with batch norm for images of 1 x 32 x 32: one input channel, and one linear layer instead of its three.

    ``widths`` are those of its five blocks, which have 2, 2, 3, 3 and 3 convolutions.
    """
    plan: list[str | int] = []
    for width, depth in zip(widths, (2, 2, 3, 3, 3), strict=True):
        plan += [width] * depth + ["M"]
    model = VGG(make_layers(plan, batch_norm=True), num_classes=classes)
    model.features[0] = nn.Conv2d(1, widths[0], kernel_size=3, padding=1)
    model.avgpool = nn.Identity()
    model.classifier = nn.Linear(widths[-1], classes)
    return model


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epochs: int,
    seed: int,
    device: str = "cpu",
    learning_rate: float = 0.01,
) -> nn.Module:
    """Train by SGD with one cycle of the learning rate, in bfloat16 where that is fast; gives the model in eval mode.

    Learning rate, momentum and weight decay are those that VGG was published with (Simonyan & Zisserman 2015, section 3.1;
    there with batches of 256). At five times the rate the network classifies as well, but by more channels at once, as
    ``benchmarks/selection.md`` shows.
    """
    generator = torch.Generator().manual_seed(seed)
    halved = device != "cpu" or torch.backends.cpu.get_cpu_capability() in ("AVX512", "AMX")  # else many times slower
    model.to(device).train()
    steps = epochs * (len(images) // 64)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=learning_rate, total_steps=steps)
    for step in trange(steps, desc="training", unit="batch", leave=False):
        at = step % (len(images) // 64)
        if at == 0:
            order = torch.randperm(len(images), generator=generator)
        batch = order[at * 64 : at * 64 + 64]
        with torch.autocast(device, torch.bfloat16, enabled=halved):
            loss = F.cross_entropy(model(images[batch].to(device)), labels[batch].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of images that are classified as labelled."""
    return torch.cat([model(x).argmax(1) for x in images.split(200)]).eq(labels).float().mean().item()
