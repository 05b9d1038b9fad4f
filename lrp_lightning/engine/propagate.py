"""The pass: checks, one forward, one backward, and the trace."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from lrp_lightning.checks import got, is_whole
from lrp_lightning.compat import function_modes, is_lazy
from lrp_lightning.composites import Composite
from lrp_lightning.engine.along import AlongPaths, Paths
from lrp_lightning.engine.captures import Captures
from lrp_lightning.engine.edges import Edges
from lrp_lightning.engine.functions import is_foreign, unit_layers_below
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.layers import Layer, Layers
from lrp_lightning.engine.ledger import Accounts, Ledger
from lrp_lightning.engine.operators.table import TABLE
from lrp_lightning.engine.relevance import CHECKPOINTS, Relevance
from lrp_lightning.engine.selecting import Selecting
from lrp_lightning.engine.targets import chosen_outputs, on_host, tensor_of
from lrp_lightning.errors import (
    InputError,
    LayerError,
    LRPError,
    ModelError,
    NotFiniteError,
    UnsupportedOperatorError,
)
from lrp_lightning.layers import LayerNames, explained, unknown_layer, unwrapped
from lrp_lightning.selection import Selection
from lrp_lightning.trace import Trace

__all__ = ["check_inputs", "check_not_nested", "out_of_autocast", "propagate"]


def propagate(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    target: Any,
    additional_forward_args: Any,
    composite: Composite,
    selection: Selection | None,
    edges: bool = False,
    on_unsupported: Literal["raise", "gradient"] = "raise",
    layers: Sequence[nn.Module | str] = (),
    of_layer_input: bool = False,
    per_sample: bool = False,
    accounts: bool = True,
    along: Sequence[Sequence[tuple[str, int]]] | None = None,
    by_place: Mapping[str, Sequence[int]] | None = None,
    values: bool = True,
    multiply_by_inputs: bool = True,
) -> tuple[Trace, list[Tensor | tuple[Tensor, ...]]]:
    """Propagate the relevance of the model's output at ``target`` to its inputs.

    The model is explained in eval mode, and its state is restored, even after an error. With ``along``, paths of
    ``(layer, neuron)``, the first samples are explained along the first path, and so on, with equal numbers of samples.
    Without ``values`` no tensor's value is read, so that the pass can be recorded: inputs and output are not checked, and
    inputs may be negative. Without ``multiply_by_inputs`` the result at ``layers``, or, without these, ``Trace.inputs``, is
    relevance before it is multiplied by the activation.

    Returns:
        The trace, and the full relevance at ``layers``, or of their inputs with ``of_layer_input``. Without ``accounts`` the
        trace lacks the relevance that arrived at layers and was absorbed there, which edges need; everything else is
        bit-identical.

    Raises:
        ModelError: if the model is not a module, has parameters without a size, or its output is not a tensor.
        NotFiniteError: if its output is not finite.
        InputError: if an input is not a floating-point tensor, not finite, or not of the model's dtype.
        TargetError: if the target is missing or does not fit the output.
        UnsupportedOperatorError: if relevance arrives at an operator without a rule.
        LayerError: if the composite, the selection or a path names a layer that the model does not have.
        GraphError: if a path does not lead from the input to the output.
        RuleError: if a rule does not fit its layer, or without ``multiply_by_inputs`` gives relevance to a value of zero.
    """
    model = unwrapped(model)
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    check_not_nested()
    given = tuple(out_of_autocast(model, x) for x in given)
    nonnegative = check_inputs(model, given, values) or [False] * len(given)
    target = on_host(target)
    extra = additional_forward_args if isinstance(additional_forward_args, tuple) else (additional_forward_args,)
    extra = () if additional_forward_args is None else extra

    with explained(model, given[0].device):
        target, *more = (t.clone() if isinstance(t, Tensor) and t.is_inference() else t for t in (target, *extra))
        run, visitor = _interpreter(
            model,
            len(given[0]),
            composite,
            selection,
            on_unsupported,
            edges,
            per_sample,
            accounts,
            along,
            multiply_by_inputs,
        )
        ledger, selecting = visitor.ledger, visitor.selecting
        captures = Captures(run, ledger, model, layers, of_layer_input)
        xs = tuple((x.clone() if x.is_inference() else x.detach()).requires_grad_(x.is_floating_point()) for x in given)
        for x, known in zip(xs, nonnegative, strict=True):
            run.begin(x, model, known)
        try:
            with captures.hooked(), run, _checkpoints_refused():
                output = run.latest(tensor_of(model(*xs, *more)))
        except RuntimeError as error:
            if not (isinstance(error, LRPError) or run.looked_up):  # perhaps integers are not token numbers
                _check_looked_up(run, [x.dtype for x in given])
            raise
        _check_looked_up(run, [x.dtype for x in given])
        _check_output(run, output, on_unsupported)
        with run:
            explains, below = _what_is_explained(run, output)

        def watched(function: Callable, t: Tensor) -> Tensor:
            with run:
                return run.latest(function(t))

        chosen = chosen_outputs(output, target, below, watched)
        selecting.explained = chosen.detach()
        visitor.layers.settle(composite, unit_layers_below(below), selecting.patterns)
        if visitor.along is not None:
            visitor.along.settle({layer.name: layer for layer in visitor.layers.all})
        ledger.asked_by_place = _neurons_of(visitor.layers, by_place or {}, given[0].device)
        captures.forward_done()
        sources = [*(x for x in xs if x.requires_grad), *(found.rows for found in run.looked_up)]
        with _checkpoints_refused():
            gradients = torch.autograd.grad(chosen.sum(), [*sources, *captures.sources], allow_unused=True)

    with torch.inference_mode(False), torch.no_grad():
        relevances = _of_inputs(run, ledger, xs, gradients, asked=not layers)
        for layer in _check_finite(selecting.explained, ledger.outside, ledger.stray) if values else ():
            warnings.warn(
                f"layer {layer.name!r} reads values outside of its box, {layer.rule}, so its relevance is not the rule's; "
                "give the box that the inputs lie in, of normalised images (0 - mean) / std to (1 - mean) / std a channel",
                stacklevel=4,
            )
        if visitor.unsupported:
            warnings.warn(
                f"relevance passed by plain gradient, without a rule: {', '.join(visitor.unsupported)}", stacklevel=4
            )
        trace = Trace(
            inputs=relevances[0] if len(relevances) == 1 and not isinstance(inputs, tuple) else tuple(relevances),
            output=output.detach(),
            explained=selecting.explained,
            unsupported=tuple(visitor.unsupported),
            per_sample=per_sample,
            explains=explains,
            below=below.detach() if explains else None,
            **_by_name(visitor),
        )
        return trace, captures.results()


def _interpreter(
    model: nn.Module,
    samples: int,
    composite: Composite,
    selection: Selection | None,
    on_unsupported: str,
    edges: bool,
    per_sample: bool,
    accounts: bool,
    along: Paths | None,
    multiplied: bool,
) -> tuple[Interpreter, Relevance]:
    """The interpreter of one pass, and its visitor."""
    names = LayerNames(model)
    own = [names.rule_of(name) for name in set(names.of_parameter.values())]
    proportional = composite.proportional and all(rule is None or rule.proportional for rule in own)
    follows = edges or along is not None
    layers = Layers(names, samples)
    about = samples, proportional, proportional and composite.proportional_below(True), multiplied
    ledger = Accounts(*about, activations=edges) if accounts or edges else Ledger(*about)
    noted = Edges(layers, ledger, per_sample) if edges and isinstance(ledger, Accounts) else None
    paths = None if along is None else AlongPaths(along, samples)
    selecting = Selecting(selection, names, ledger, noted)
    visitor = Relevance(layers, composite, ledger, selecting, noted, paths, on_unsupported)
    assert visitor.follows == follows
    return Interpreter(names, TABLE, visitor, samples), visitor


def _neurons_of(layers: Layers, chosen: Mapping[str, Sequence[int]], device: torch.device) -> dict[Layer, Tensor]:
    """The layers and neurons that are requested by name.

    Raises:
        LayerError: if a layer or neuron does not exist.
    """
    by_name, found = {layer.name: layer for layer in layers.all}, {}
    for name, neurons in chosen.items():
        if name not in by_name:
            raise unknown_layer(name, list(by_name))
        there_are = by_name[name].neurons
        wrong = [n for n in neurons if not (is_whole(n) and 0 <= n < there_are)]
        if wrong:
            raise LayerError(f"layer {name!r} has {there_are} neurons, 0 to {there_are - 1}, got {wrong[0]!r}")
        found[by_name[name]] = torch.tensor([int(n) for n in neurons], device=device)
    return found


@contextmanager
def _checkpoints_refused() -> Iterator[None]:
    """Raise an error for checkpoints, whose recomputation in the backward pass cannot be followed."""
    try:
        yield
    except CheckpointError as error:
        raise UnsupportedOperatorError(CHECKPOINTS) from error


def _check_output(run: Interpreter, output: Tensor, on_unsupported: str) -> None:
    """Raise an error for an output that cannot be explained.

    Raises:
        ModelError: with the reason.
    """
    if not run.known(output) or (is_foreign(output.grad_fn) and on_unsupported != "gradient"):
        made_by = output.grad_fn.name() if output.grad_fn is not None else "no operator that relevance passes"
        raise ModelError(
            f"the model's output does not depend on its input: it was made by {made_by}. If that is a custom "
            "autograd.Function, give it a rule with lrp_lightning.register_operator; operators inside torch.func's "
            "transforms, such as vmap, cannot be seen"
        )
    facts = run.of(output)
    if facts.samples is None:
        raise UnsupportedOperatorError(facts.lost)
    if run.samples > 1 and not (facts.samples.is_along(0) and len(output) == run.samples):
        raise UnsupportedOperatorError(
            f"the rows of the model's output, {tuple(output.shape)}, are not those of the {run.samples} samples in order; "
            "so rows cannot be matched with samples; return one row per sample, in the order of the inputs"
        )


def _what_is_explained(run: Interpreter, output: Tensor) -> tuple[str, Tensor]:
    """A description of the explained values, if they are not the output itself, and these values.

    A softmax, a sigmoid or another monotone map at the end changes signs: log-probabilities are negative, so neurons that
    support a class would count against it. Therefore the logits that the map reads are explained.
    """
    below = run.of(output).below
    if below is None:
        return "", output
    logits, _ = below.logits()
    return (f"the logits below {below.map}", logits) if logits.shape == output.shape else ("", output)


def _check_finite(explained: Tensor, outside: dict[Layer, Tensor], stray: Sequence[Tensor] = ()) -> list[Layer]:
    """Raise an error if the output is not finite or relevance belongs to no sample; warn of values outside a rule's box."""
    facts = [torch.isfinite(explained).all(), *outside.values()]
    facts += [torch.stack(list(stray)).sum() == 0] if stray else []
    finite, *rest = torch.stack(
        [fact.to(explained.device) for fact in facts]
    ).tolist()  # the only read of values after the pass
    if not finite:
        raise NotFiniteError("the model's output is not finite for these inputs; are its weights NaN or infinite?")
    if stray and not rest.pop():
        raise UnsupportedOperatorError(
            "relevance arrived in rows of a tensor that belong to no sample, such as constants put beside the samples; "
            "put constants beside them in another dimension than that of the samples"
        )
    return [layer for layer, is_so in zip(outside, rest, strict=True) if is_so]


def check_not_nested() -> None:
    if any(isinstance(mode, Interpreter) for mode in function_modes()):
        raise LRPError("an attribution was called inside the forward of a model that is being explained; call it outside")


def out_of_autocast(model: nn.Module, x: Any) -> Any:
    """An input converted to the model's precision, as autocast would do."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is None or not isinstance(x, Tensor) or not x.is_floating_point() or x.is_meta:
        return x
    return x.to(parameter.dtype) if torch.is_autocast_enabled(x.device.type) else x


def _check_looked_up(run: Interpreter, dtypes: Sequence[torch.dtype]) -> None:
    """Raise an error for token numbers that no embedding reads.

    Raises:
        InputError: naming the input.
    """
    read = {found.tokens.input for found in run.looked_up}
    for i, layer in enumerate(run.inputs):
        if layer is None and i not in read:
            which = f"input {i}" if len(run.inputs) > 1 else "the input"
            raise InputError(
                f"{which} must be a floating-point tensor, got {dtypes[i]} that no embedding looks up, so it gets no "
                "relevance; convert it with .float(), or, if it is a mask or the like, give it as additional_forward_args"
            )


def _of_inputs(
    run: Interpreter, ledger: Ledger, xs: Sequence[Tensor], gradients: Sequence[Tensor | None], asked: bool
) -> list[Tensor]:
    """The relevance of each input, shaped like it; for a token, the sum over its row.

    If the caller ``asked`` for it, it may be returned before it is multiplied by the input.
    """
    maps = asked and not ledger.multiplied
    if maps and run.looked_up:
        raise InputError(
            "token numbers cannot be multiplied by relevance: leave multiply_by_inputs=True, or explain the embedding with "
            "LayerSelectiveLRP"
        )
    inputs = [(layer, x) for layer, x in zip(run.inputs, xs, strict=True) if layer is not None]
    of_layer: dict[Layer, Tensor] = {}
    given: list[Tensor] = []
    sources = [*inputs, *((found.layer, found.rows) for found in run.looked_up)]
    for (source, t), g in zip(sources, gradients, strict=False):
        g = torch.zeros_like(t) if g is None else g
        r = of_layer[source] = ledger.relevance_of(t, g, source.first).detach()
        ledger.arrive_at_input(source, t.detach(), r)
        if maps:
            given.append(ledger.attribution(t, g, source.first).detach())
    if maps:
        return given
    of_tokens = {  # the last place is for rows of no token
        i: x.new_zeros(x.numel() + 1, dtype=torch.float)
        for i, (layer, x) in enumerate(zip(run.inputs, xs, strict=True))
        if layer is None
    }
    for found in run.looked_up:
        r, (number, _, places) = of_layer[found.layer].sum(-1), found.tokens
        total = of_tokens[number].to(r.dtype)
        of_tokens[number] = total.index_add(0, places.flatten().remainder(len(total)).to(r.device), r.flatten())
        if bool((places < 0).any()):  # such as a class token before those of the input
            beside = torch.where(places.to(r.device) < 0, r, 0)
            samples = found.tokens.samples()
            ledger.absorb_values("constant", beside, samples, found.layer.lost)
    return [
        of_tokens[i][:-1].view(x.shape) if layer is None else of_layer[layer]
        for i, (layer, x) in enumerate(zip(run.inputs, xs, strict=True))
    ]


def _by_name(visitor: Relevance) -> dict[str, Any]:
    """Records by the layers' names, in the order of the forward pass."""
    layers, ledger, edges = visitor.layers.all, visitor.ledger, visitor.edges

    def named(notes: dict[Layer, Tensor]) -> dict[str, Tensor]:
        return {layer.name: notes[layer] for layer in layers if layer in notes}

    order = {layer: i for i, layer in enumerate(layers)}
    between = {} if edges is None else edges.between
    pairs = sorted(between, key=lambda pair: (order[pair[1]], order[pair[0]]))
    return {
        "relevance": named(ledger.relevance),
        "activation": named(ledger.activation),
        "masks": named(visitor.selecting.masks),
        "edges": {(lower.name, upper.name): between[lower, upper] for lower, upper in pairs},
        "absorbed_by": {} if edges is None else named(edges.stays),
        "absorbed": dict(reversed(ledger.absorbed.items())),
        "by_place": {layer.name: ledger.by_place[layer] for layer in layers if layer in ledger.by_place},
        "kinds": {layer.name: layer.kind for layer in layers if layer in ledger.relevance},
        "places": {layer.name: layer.places for layer in layers if layer in ledger.relevance},
    }


def check_inputs(model: nn.Module, inputs: tuple[Any, ...], values: bool = True, tokens: bool = True) -> list[bool]:
    """Raise an error for inputs that cannot be explained; return for each whether all its values are at least 0.

    Without ``values`` they are not read, which would need to wait for the device. Integers are allowed as ``tokens`` if
    that is True.
    """
    if not inputs:
        raise InputError("there is no input")
    for i, x in enumerate(inputs):
        where = f"input {i}" if len(inputs) > 1 else "the input"
        if not isinstance(x, Tensor):
            raise InputError(f"{where} must be a tensor, got {got(x)}")
        if x.is_meta:
            raise InputError(f"{where} is on the meta device, so it has no values")
        if x.is_complex() or x.dtype == torch.bool or not (tokens or x.is_floating_point()):
            raise InputError(f"{where} must be a floating-point tensor, got {x.dtype}; convert it with .float()")
        if x.ndim < 2 or x.numel() == 0:
            hint = "; is it a target? The inputs come first, the target second" if x.ndim == 1 else ""
            hint = "; give a single sample as x[None]" if x.ndim == 1 and x.is_floating_point() else hint
            raise InputError(f"{where} must be a batch (samples first) with at least one sample, got {tuple(x.shape)}{hint}")
        if len(x) != len(inputs[0]):
            raise InputError(f"{where} has {len(x)} samples, the first input has {len(inputs[0])}")
        parameter = next((p for p in model.parameters() if p.is_floating_point() and not is_lazy(p)), None)
        if parameter is not None and parameter.is_inference():
            raise ModelError("the model was made in inference mode, so it cannot be differentiated; make it outside of it")
        dtype = x.dtype if x.is_floating_point() or parameter is None else parameter.dtype
        if parameter is not None and (parameter.dtype, parameter.device) != (dtype, x.device):
            raise InputError(
                f"{where} is {x.dtype} on {x.device}, the model {parameter.dtype} on {parameter.device}; "
                "move or convert one of them with .to()"
            )
    nonnegative = []
    for i, x in enumerate(inputs if values else ()):  # the only read before the pass
        least, most = torch.stack(x.detach().aminmax()).tolist()
        if x.is_floating_point() and not (abs(least) < float("inf") and abs(most) < float("inf")):  # false for NaN
            where = f"input {i}" if len(inputs) > 1 else "the input"
            raise InputError(f"{where} holds NaN or infinite values")
        nonnegative.append(least >= 0)
    return nonnegative
