"""The result of one pass: relevance, masks, edges, and where relevance was absorbed."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lrp_lightning.compat import in_double
from lrp_lightning.errors import LayerError
from lrp_lightning.layers import unknown_layer

__all__ = ["Trace"]

_SHOWN, _SIDE, _LAYERS = 6, 112, 120
"""Samples, pixels of a heatmap and layers that a notebook shows, so that a cell's output stays small."""


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """The relevance of one batch at every layer. Tensors carry no autograd graph.

    A layer has the name of its affine map (``"features.28"``, with its batch norm folded in). The input is ``"input"``; a
    residual sum has its block's name plus ``".add"``; a layer that runs twice in one forward is numbered, ``"conv#1"``,
    ``"conv#2"``. Layers are in the order of the forward pass.

    Attributes:
        inputs: relevance of the input, shaped like it; a tuple for several inputs.
        output: the model's output (logits), ``(N, classes)``.
        explained: the output that the target chose, ``(N,)``, to which the relevance of each layer adds up. If the model
            ends in a softmax, a sigmoid or another monotone map, it is the logit below that, not the probability.
        explains: describes ``explained`` if it is not the model's output: ``"the logits below softmax"``; else empty.
        below: those logits, shaped like ``output``; None without such a map.
        relevance: ``{layer: (N, C)}``, the relevance that arrived at each neuron, summed over space, before any selection.
        activation: ``{layer: (N, C)}``, each neuron's mean over space; only with edges.
        masks: ``{layer: (N, C) bool}``, the critical neurons of hidden layers, except layers without a selection; shaped
            like the layer's output, ``(N, ...)``, if single values were selected. Empty without a selection.
        edges: ``{(lower, upper): (C_lower, C_upper)}``, relevance propagated from neuron to neuron, summed over space and
            batch; for a residual sum ``(C,)``, channel to same channel. With ``per_sample`` the samples come first,
            ``(N, ...)``. Empty unless requested. With edges, layers also include operators that combine neurons or absorb
            relevance: layer norms, added constants, and ``"values"``, where values of one channel come from several neurons.
        absorbed_by: ``{layer: (C,)}`` or ``(N, C)``, as edges: the part of each neuron's relevance that reaches no neuron
            below, because biases, constants and stabilisers absorb it or the neuron was not selected. So the relevance of a
            layer is the sum of its edges to lower layers and this, and also the sum of its edges from above. Only with
            edges.
        absorbed: ``{where: (N,)}``, relevance that does not reach the input, by where it is absorbed: in biases and other
            added constants, in stabilisers, and in neurons that were not selected.
        per_sample: whether edges are given for each sample.
        unsupported: operators without a rule that propagated relevance by their plain gradient, and where.
        history: ``(passes, N)``, the least error of the output after each pass of a selection that searches
            (``MinError``); None for other selections.
        kinds: ``{layer: "input" | "convolution" | "linear" | "normalisation" | "junction"}``.
        by_place: ``{layer: (activation, relevance)}``, each ``(N, neurons, places)``, for the requested neurons at each
            place; empty unless requested. The activation is rectified if only a rectifier reads it.
        places: ``{layer: values}``, the number of values per sample that a neuron's relevance is summed over: ``H * W`` for
            a channel, the number of tokens, 1 for a feature.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, TopK
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> trace = SelectiveLRP(model, selection=TopK(2)).trace(torch.rand(5, 4), target=1, edges=True)
        >>> {layer: tuple(r.shape) for layer, r in trace.relevance.items()}
        {'input': (5, 4), '0': (5, 8), '2': (5, 3)}
        >>> trace.masks["0"].sum(1), trace.edges["input", "0"].shape
        (tensor([2, 2, 2, 2, 2]), torch.Size([4, 8]))
    """

    inputs: Tensor | tuple[Tensor, ...]
    output: Tensor
    explained: Tensor
    relevance: dict[str, Tensor]
    kinds: dict[str, str]
    places: dict[str, int]
    activation: dict[str, Tensor] = field(default_factory=dict)
    by_place: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    edges: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    absorbed_by: dict[str, Tensor] = field(default_factory=dict)
    absorbed: dict[str, Tensor] = field(default_factory=dict)
    unsupported: tuple[str, ...] = ()
    history: Tensor | None = None
    per_sample: bool = False
    explains: str = ""
    below: Tensor | None = None

    @property
    def logits(self) -> Tensor:
        """``(N, classes)``, from which ``explained`` was chosen: the output, or the logits below a final monotone map."""
        return self.output if self.below is None else self.below

    @property
    def conservation_error(self) -> Tensor:
        """``(N,)``: ``|input + absorbed - output| / |output|``, 0 where everything is accounted for."""
        inputs = self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)
        total = sum((in_double(r).flatten(1).sum(1) for r in inputs), torch.zeros_like(in_double(self.explained)))
        for stayed in self.absorbed.values():
            total = total + in_double(stayed)
        output = in_double(self.explained)
        lost = (total - output).abs()
        return torch.where(lost == 0, 0, lost / output.abs()).to(self.explained.dtype)

    def critical(self, layer: str) -> Tensor:
        """``(N, C)``, boolean: the critical neurons of a layer; if values were selected, the neurons with a critical value.

        Args:
            layer: one of ``masks``.

        Raises:
            LayerError: if the layer does not exist or has no mask.
        """
        if layer not in self.masks:
            if layer not in self.relevance:
                raise unknown_layer(layer, list(self.masks or self.relevance))
            masked = f"masks are of {', '.join(map(repr, self.masks))}"
            why = masked if self.masks else "there was no selection, such as TopK(0.1)"
            raise LayerError(f"layer {layer!r} was left whole, so it has no critical neurons; {why}")
        mask = self.masks[layer]
        if mask.ndim == 2:
            return mask
        dim = mask.ndim - 1 if self.kinds[layer] == "linear" else 1 + (mask.shape[1] != self.relevance[layer].shape[1])
        return mask.movedim(dim, 1).flatten(2).any(2)

    def _heading(self) -> str:
        samples, layers = len(self.explained), [name for name in self.relevance if self.kinds[name] != "input"]
        said = f"Trace of {samples} sample{'s' * (samples != 1)} through {len(layers)} layer{'s' * (len(layers) != 1)}"
        return said + (f", conservation error at most {self.conservation_error.max().item():.1e}" if samples else "")

    def _repr_html_(self) -> str:
        """For a notebook: heatmaps of the first samples, where relevance was absorbed, and what arrived at each layer."""
        from lrp_lightning.html import sections
        from lrp_lightning.html.markup import part

        heatmaps = sections.input_heatmaps(self, most=_SHOWN, side=_SIDE)
        conservation = "conservation", sections.conservation(self, most=_SHOWN, layers=_LAYERS)
        heading = self._heading() + (f"; relevance adds up to {self.explains}" if self.explains else "")
        return part(heading, *([("heatmaps", heatmaps)] if heatmaps else []), conservation)

    def __repr__(self) -> str:
        lines = [self._heading()]
        if self.explains:
            lines.append(f"  relevance adds up to {self.explains}, not to the output")
        width = max((len(name) for name in self.relevance), default=0)
        for name, relevance in self.relevance.items():
            line = f"  {name:<{width}}  {self.kinds[name]:<13}  {relevance.shape[1]:>5} neurons"
            if name in self.masks:
                counts = self.masks[name].flatten(1).sum(1).tolist() or [0]
                line += f"  {'-'.join(map(str, sorted({min(counts), max(counts)}))):>9} critical"
            lines.append(line)
        if self.unsupported:
            lines.append(f"  by plain gradient: {', '.join(self.unsupported)}")
        if self.edges:
            lines.append(f"  edges between {len(self.edges)} pairs of layers")
        return "\n".join(lines)
