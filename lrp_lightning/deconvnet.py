"""Reconstruction of what activates chosen neurons, in input space: the deconvnet and guided backpropagation.

Both are the gradient of a neuron's value with one change: each rectifier also rectifies the gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lrp_lightning.checks import check_batches, inputs_of, is_whole
from lrp_lightning.engine.gradients import METHODS, Method, activation_of
from lrp_lightning.engine.propagate import check_inputs, check_not_nested, out_of_autocast
from lrp_lightning.errors import InputError, LayerError, RuleError
from lrp_lightning.layers import LayerNames, explained, unwrapped
from lrp_lightning.progress import tqdm

__all__ = ["TopActivations", "fields_of", "reconstruct", "reconstruct_at", "reconstruct_top_activations"]

_GRADIENTS_AT_ONCE = 64
"""Samples times neurons in one backward: limits memory for any number of neurons."""


def reconstruct(
    model: nn.Module,
    inputs: Tensor,
    layer: nn.Module | str,
    neurons: Sequence[int] | Tensor,
    method: Literal["deconvnet", "guided"] = "deconvnet",
    at: Literal["everywhere", "strongest"] = "everywhere",
    additional_forward_args: Any = None,
) -> Tensor:
    """The parts of the input that activate each of the chosen neurons, in input space.

    The gradient of a neuron's value with respect to the input, in which rectifiers (ReLU, ReLU6 and clamps at zero, as
    modules or as functions) propagate only positive gradients: all of them for ``"deconvnet"`` (Zeiler & Fergus 2014,
    section 2.1), only where the activation was also positive for ``"guided"`` (Springenberg et al. 2015, section 3.4). Max
    pooling uses its switches, every other operator its own gradient. Equal to ``captum.attr.Deconvolution`` and
    ``GuidedBackprop`` if these see every rectifier: they see only modules, and only one call of each.

    Args:
        model: any module; it runs in eval mode and is not changed.
        inputs: ``(N, ...)``.
        layer: a module, or the name of a layer, a residual sum or any module. A layer's batch norm is folded in, as
            everywhere.
        neurons: which of its neurons (channels), such as ``trace.relevance[layer].sum(0).topk(5).indices``.
        method: the treatment of rectifiers, see above.
        at: the value of a neuron with many places: their sum, or ``"strongest"``, only the largest, as in the paper's
            figures.
        additional_forward_args: passed to the model after ``inputs``.

    Returns:
        ``(len(neurons), *inputs.shape)``, in units of the neuron's value per unit of the input.

    Raises:
        LayerError: if the layer or a neuron does not exist, or the layer runs more than once.
        InputError: if the inputs are not a finite floating-point tensor, samples first.
        RuleError: if ``method`` or ``at`` is not one of these.

    Example:
        >>> import torch
        >>> from lrp_lightning import reconstruct
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 8, 3))
        >>> reconstruct(model, torch.rand(2, 1, 9, 9), "2", neurons=[0, 5, 7]).shape
        torch.Size([3, 2, 1, 9, 9])
    """
    if method not in METHODS:
        raise RuleError(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}")
    if at not in ("everywhere", "strongest"):
        raise RuleError(f"at must be 'everywhere' or 'strongest', got {at!r}")
    model = unwrapped(model)
    x = _checked(model, inputs)
    extra = additional_forward_args if isinstance(additional_forward_args, tuple) else (additional_forward_args,)
    extra = () if additional_forward_args is None else extra
    with explained(model, x.device):
        x = _leaf(x)
        places = activation_of(model, x, extra, layer, method)
        places = places.index_select(1, _checked_neurons(neurons, places.shape[1]).to(x.device))
        return _gradients(places.sum(2) if at == "everywhere" else places.max(2).values, x)


def reconstruct_at(
    model: nn.Module, images: Tensor, layer: str, neurons: Tensor, places: Tensor, method: Method = "deconvnet"
) -> Tensor:
    """The parts of each image that activate one neuron of a layer at one place.

    Args:
        model: as in :func:`reconstruct`.
        images: ``(N, ...)``.
        layer: the layer's name.
        neurons: ``(N,)``, one for each image.
        places: ``(N,)``, the place of each neuron, counted row by row.
        method: as in :func:`reconstruct`.

    Returns:
        Shaped like ``images``.

    Raises:
        LayerError, InputError: as :func:`reconstruct`.
    """
    if not len(images):
        return images
    model = unwrapped(model)
    images = _checked(model, images)
    parts = []
    with explained(model, images.device):
        for part in torch.arange(len(images), device=images.device).split(_GRADIENTS_AT_ONCE):
            x = _leaf(images[part])
            values = activation_of(model, x, (), layer, method)
            chosen = values[torch.arange(len(x), device=x.device), neurons[part], places[part]]
            parts.append(torch.autograd.grad(chosen.sum(), x)[0])
    return torch.cat(parts)


def fields_of(model: nn.Module, images: Tensor, layer: str, neurons: Tensor, places: Tensor) -> Tensor:
    """The receptive fields of places of a layer's neurons, ``(N, 2, S)`` as in :class:`TopActivations`.

    Args:
        model, images, layer, neurons, places: as in :func:`reconstruct_at`.

    Raises:
        LayerError, InputError: as :func:`reconstruct`.
    """
    if not len(images):
        return torch.zeros(0, 2, images.ndim - 2, dtype=torch.long)
    # the field of a place is the same for every image and neuron, so one image is enough
    distinct, which = places.unique(return_inverse=True)
    one_of = torch.empty_like(distinct).scatter_(0, which, torch.arange(len(images), device=images.device))
    model = unwrapped(model)
    image = _checked(model, images[:1])
    with explained(model, image.device):
        x = _leaf(image)
        values = activation_of(model, x, (), layer, "receptive_field")
        reached = _gradients(values[:, neurons[one_of], distinct], x)[:, 0]
    return _bounds(reached != 0)[which]


@dataclass(frozen=True, eq=False)
class TopActivations:
    """The samples that activate one neuron most, at one place each, strongest first.

    Attributes:
        layer: the layer's name as given.
        neuron: the neuron's number.
        values: ``(k,)``, the neuron's largest value in each sample.
        samples: ``(k,)``, the samples' numbers in the loader's order.
        images: ``(k, C, ...)``, the samples.
        reconstructions: ``(k, C, ...)``, the parts of each sample that activate the neuron at that place.
        fields: ``(k, 2, S)``, the receptive field of that place in the S spatial dimensions: first and one past last index.
        labels: ``(k,)``, the samples' classes; None if the loader has no labels or they were not requested.
        predictions: ``(k,)``, the predicted classes; None if they were not requested.

    Example:
        >>> import torch
        >>> from lrp_lightning import reconstruct_top_activations
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU())
        >>> top = reconstruct_top_activations(model, torch.rand(8, 1, 9, 9).split(4), "0", neuron=2, k=3)
        >>> top.images.shape, top.reconstructions.shape, top.fields.shape
        (torch.Size([3, 1, 9, 9]), torch.Size([3, 1, 9, 9]), torch.Size([3, 2, 2]))
    """

    layer: str
    neuron: int
    values: Tensor
    samples: Tensor
    images: Tensor
    reconstructions: Tensor
    fields: Tensor
    labels: Tensor | None = None
    predictions: Tensor | None = None

    @property
    def patches(self) -> list[tuple[Tensor, Tensor]]:
        """Image and reconstruction, each cut to the receptive field."""
        windows = [(slice(None), *(slice(a, b) for a, b in zip(*field, strict=True))) for field in self.fields.tolist()]
        return [(i[w], r[w]) for i, r, w in zip(self.images, self.reconstructions, windows, strict=True)]


def reconstruct_top_activations(
    model: nn.Module,
    loader: Iterable[Any],
    layer: nn.Module | str,
    neuron: int,
    k: int = 9,
    method: Literal["deconvnet", "guided"] = "deconvnet",
    progress: bool = True,
) -> TopActivations:
    """The ``k`` samples that activate a neuron most, with its reconstruction and receptive field in each.

    As in the figures of Zeiler & Fergus (2014), each sample is ranked by its strongest place. The loader is read once, batch
    by batch; only ``k`` samples are kept.

    Args:
        model: any module; it runs in eval mode and is not changed.
        loader: yields batches of inputs, or tuples and lists whose first element is the inputs.
        layer: as in :func:`reconstruct`.
        neuron: the neuron's number.
        k: number of samples; fewer are returned if the loader has fewer.
        method: as in :func:`reconstruct`.
        progress: whether to show a progress bar on a terminal.

    Returns:
        The samples, strongest first, with the parts of each that activate the neuron.

    Raises:
        LayerError, InputError, RuleError: as :func:`reconstruct`; InputError too if the loader is empty.

    Example:
        >>> import torch
        >>> from lrp_lightning import reconstruct_top_activations
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 8, 3))
        >>> loader = torch.rand(20, 1, 9, 9).split(8)
        >>> top = reconstruct_top_activations(model, loader, "2", neuron=5, k=3)
        >>> top.patches[0][0].shape  # what a place of that layer can see
        torch.Size([1, 5, 5])
    """
    if not is_whole(k) or k < 1:
        raise InputError(f"k must be at least 1, got {k!r}")
    check_batches(loader)
    model = unwrapped(model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    best: tuple[Tensor, Tensor, Tensor] | None = None  # values, numbers, images
    seen = 0
    for batch in tqdm(loader, desc=f"neuron {neuron}", unit="batch", leave=False, disable=None if progress else True):
        x = _checked(model, inputs_of(batch).to(device))
        values = _places(model, x, layer, neuron, "deconvnet")[1].detach().amax(1)
        numbers = torch.arange(seen, seen + len(x), device=device)
        seen += len(x)
        given = (values, numbers, x.detach())
        joined = given if best is None else tuple(map(torch.cat, zip(best, given, strict=True)))
        first = joined[0].topk(min(k, len(joined[0]))).indices
        best = tuple(t[first] for t in joined)  # type: ignore[assignment]
    if best is None:
        raise InputError("the loader gives no batch")
    values, numbers, images = best
    x, places = _places(model, images, layer, neuron, "receptive_field")
    with explained(model, device):
        [reaches] = _gradients(places.gather(1, places.argmax(1, keepdim=True)), x)
    return TopActivations(
        layer=layer if isinstance(layer, str) else LayerNames(model).of_module[id(layer)],
        neuron=neuron,
        values=values,
        samples=numbers,
        images=images,
        reconstructions=reconstruct(model, images, layer, [neuron], method, "strongest")[0],
        fields=_bounds(reaches != 0),
    )


def _places(model: nn.Module, inputs: Tensor, layer: nn.Module | str, neuron: int, method: Method) -> tuple[Tensor, Tensor]:
    """The inputs as a leaf, and a neuron's value at each place, ``(N, places)``."""
    with explained(model, inputs.device):
        x = _leaf(inputs)
        places = activation_of(model, x, (), layer, method)
        [chosen] = _checked_neurons([neuron], places.shape[1]).tolist()
        return x, places[:, chosen]


def _bounds(reached: Tensor) -> Tensor:
    """First and one past last index that is True in any channel, for each spatial dimension: ``(N, 2, S)``."""
    ends = []
    for dim in range(2, reached.ndim):
        along = reached.movedim(dim, 1).flatten(2).any(2).int()
        ends.append(torch.stack([along.argmax(1), along.shape[1] - along.flip(1).argmax(1)], 1))
    return torch.stack(ends, 2) if ends else torch.zeros(len(reached), 2, 0, dtype=torch.long)


def _gradients(values: Tensor, x: Tensor) -> Tensor:
    """The gradient of each column of ``values``, ``(N, K)``, several per backward: ``(K, N, ...)``."""
    one_each = torch.eye(values.shape[1], dtype=values.dtype, device=x.device)[:, None].expand(-1, len(x), -1)
    parts = [
        torch.autograd.grad(values, x, part, retain_graph=True, is_grads_batched=True)[0]
        for part in one_each.split(max(1, _GRADIENTS_AT_ONCE // len(x)))
    ]
    return torch.cat(parts)


def _leaf(x: Tensor) -> Tensor:
    return (x.clone() if x.is_inference() else x.detach()).requires_grad_()


def _checked(model: nn.Module, inputs: Any) -> Tensor:
    if not isinstance(inputs, Tensor):
        raise InputError(f"inputs must be a tensor, samples first, got {type(inputs).__name__}")
    check_not_nested()
    inputs = out_of_autocast(model, inputs)
    check_inputs(model, (inputs,), tokens=False)
    return inputs


def _checked_neurons(neurons: Sequence[int] | Tensor, there_are: int) -> Tensor:
    chosen = neurons.tolist() if isinstance(neurons, Tensor) else neurons
    if not isinstance(chosen, Sequence) or not chosen or not all(map(is_whole, chosen)):
        raise LayerError(
            "neurons must be numbers of neurons, at least one, such as [0, 5] or mask.nonzero().flatten(), got "
            f"{neurons!r:.100}"
        )
    wrong = [n for n in chosen if not 0 <= n < there_are]
    if wrong:
        raise LayerError(f"there is no neuron {wrong[0]}; the layer has neurons 0 to {there_are - 1}")
    return torch.tensor(chosen)
