"""A classifier's explanations as predictions, so that Lightning's Trainer can explain a data set."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lrp_lightning.attribution import SelectiveLRP
from lrp_lightning.callbacks.batches import BatchFn
from lrp_lightning.checks import inputs_of, is_whole
from lrp_lightning.composites import Composite, EpsilonPlus
from lrp_lightning.errors import InputError, ModelError, TargetError
from lrp_lightning.rules import Rule
from lrp_lightning.selection import Selection
from lrp_lightning.store.identity import described, fingerprint
from lrp_lightning.trace import Trace

__all__ = ["Explainer"]


class Explainer(LightningModule):
    """A model whose predictions are explanations, for ``Trainer.predict``, on the trainer's devices and processes.

    A relevance pass runs outside of autocast, so under ``precision="16-mixed"`` or ``"bf16-mixed"`` it has the model's own
    precision; ``"bf16-true"`` converts the model, and passes run in that precision. Each device must hold all parameters:
    use DDP, not FSDP.

    Args:
        model: the classifier, as in :class:`lrp_lightning.SelectiveLRP`; a ``LightningModule`` or any module.
        composite, selection, on_unsupported: as in :class:`lrp_lightning.SelectiveLRP`.
        target: what to explain for each sample: its ``"predicted"`` class, its ``"label"``, or any target of
            :class:`lrp_lightning.SelectiveLRP` that suits every batch, such as the number of a class.
        batch_fn: maps a batch to ``(inputs, labels)``: ``inputs`` a tensor, or a tuple of the model's positional inputs;
            ``labels`` a tensor or None. Without it batches are ``(inputs, labels, ...)``, or inputs alone.

    Raises:
        ModelError, RuleError, SelectionError: as :class:`lrp_lightning.SelectiveLRP`.
        TargetError: if ``target`` is another string.

    Example:
        >>> import torch
        >>> from lightning.pytorch import Trainer
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from lrp_lightning import TopK
        >>> from lrp_lightning.callbacks import Explainer
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> loader = DataLoader(TensorDataset(torch.randn(20, 4), torch.arange(20) % 3), batch_size=8)
        >>> trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
        >>> batches = trainer.predict(Explainer(model, selection=TopK(2), target="label"), loader)
        >>> [len(batch["predicted"]) for batch in batches], batches[0]["relevance"]["0"].shape
        ([8, 8, 4], torch.Size([8, 8]))
        >>> bool((batches[0]["explained_class"] == batches[0]["labels"]).all()), batches[0]["masks"]["0"].sum(1)
        (True, tensor([2, 2, 2, 2, 2, 2, 2, 2]))
    """

    def __init__(
        self,
        model: nn.Module,
        composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
        selection: Selection | None = None,
        target: Any = "predicted",
        batch_fn: BatchFn | None = None,
        on_unsupported: Literal["raise", "gradient"] = "raise",
    ) -> None:
        super().__init__()
        lrp = SelectiveLRP(model, composite, selection, on_unsupported)
        if isinstance(target, str) and target not in ("predicted", "label"):
            raise TargetError(f"target must be 'predicted', 'label' or what SelectiveLRP takes, got {target!r}")
        self.model: nn.Module = model
        self.target: Any = target
        self.batch_fn: BatchFn | None = batch_fn
        self.composite: Composite = lrp.composite
        self.selection: Selection | None = lrp.selection
        self.on_unsupported: Literal["raise", "gradient"] = lrp.on_unsupported
        self.wanted: Tensor | None = None
        """The samples of the next batch to explain, ``(n,)``; None for all. A writer leaves out those that it has."""

    def setup(self, stage: str) -> None:
        """Raise an error for a trainer that shards parameters.

        Args:
            stage: the trainer's stage.

        Raises:
            ModelError: if the trainer's strategy shards parameters.
        """
        strategy = self.trainer.strategy
        kinds = {kind.__name__ for kind in type(strategy).__mro__}
        if getattr(strategy, "zero_stage_3", False) or kinds & {"FSDPStrategy", "ModelParallelStrategy"}:
            raise ModelError(
                f"an Explainer needs unsharded parameters, and {type(strategy).__name__} shards them; use 'ddp'"
            )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's forward.

        Args:
            args: passed to it.
            kwargs: passed to it.
        """
        return self.model(*args, **kwargs)

    def predict_step(self, batch: Any, batch_idx: int = 0, dataloader_idx: int = 0) -> dict[str, Any]:
        """Explain a batch.

        Args:
            batch: a batch of the loader.
            batch_idx: its number.
            dataloader_idx: the loader's number.

        Returns:
            ``inputs``: relevance of the inputs, shaped like them, a tuple for several; ``relevance``: ``{layer: (N, C)}``;
            ``masks``: ``{layer: (N, C) bool}``, critical neurons; ``predicted``: ``(N,)``, the class with the highest logit,
            -1 if the output is not ``(N, classes)``; ``explained``: ``(N,)``, the logit that is explained;
            ``explained_class``: ``(N,)``, its class, -1 if it is not the output of one class; ``conservation_error``:
            ``(N,)``; ``labels``: ``(N,)``, if batches have one whole number per sample; ``kinds`` and ``places`` of layers,
            as in :class:`lrp_lightning.Trace`. Only for ``wanted`` samples; empty without them.

        Raises:
            InputError: if the batch has another form.
            TargetError: if ``target`` is ``"label"`` and the batch has no labels, or it does not fit the output.
        """
        inputs, labels = self.read(batch)
        if not len(inputs[0]):
            return {}
        target: Any = _predicted if isinstance(self.target, str) else self.target
        if self.target == "label" and isinstance(self.target, str):
            if labels is None:
                raise TargetError("target='label' needs batches (inputs, labels) with one class number per sample")
            target = labels
        lrp = SelectiveLRP(self.model, self.composite, self.selection, self.on_unsupported)
        trace = lrp.trace(inputs if len(inputs) > 1 else inputs[0], target)
        flat = trace.logits.ndim == 2
        none = torch.full((len(trace.explained),), -1, device=trace.explained.device)
        found: dict[str, Any] = {
            "inputs": trace.inputs,
            "relevance": trace.relevance,
            "masks": {layer: trace.critical(layer) for layer in trace.masks},
            "predicted": trace.logits.argmax(1) if flat else none,
            "explained": trace.explained,
            "explained_class": _explained_class(target, trace) if flat else none,
            "conservation_error": trace.conservation_error,
            "kinds": trace.kinds,
            "places": trace.places,
        }
        return found if labels is None else {**found, "labels": labels.detach()}

    def read(self, batch: Any) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """The ``wanted`` inputs of a batch and their labels; labels are None unless they are one integer per sample.

        Args:
            batch: a batch of the loader.

        Raises:
            InputError: if the batch has another form than ``batch_fn``, or the default, requires.
        """
        if self.batch_fn is not None:
            given = self.batch_fn(batch)
            if not isinstance(given, tuple | list) or len(given) != 2:
                raise InputError(f"batch_fn must return (inputs, labels), got {type(given).__name__}")
            x, labels = given
        else:
            try:
                x = inputs_of(batch)
            except InputError as error:
                raise InputError(f"{error}; name inputs and labels with batch_fn, a function of the batch") from None
            labels = batch[1] if isinstance(batch, list | tuple) and len(batch) > 1 else None
        inputs = tuple(x) if isinstance(x, tuple | list) else (x,)
        if not inputs or not all(isinstance(t, Tensor) and t.ndim and len(t) == len(inputs[0]) for t in inputs):
            raise InputError("the input tensors of a batch must all have the same number of samples")
        whole = isinstance(labels, Tensor) and not labels.is_floating_point() and labels.shape == (len(inputs[0]),)
        own = labels if whole else None
        if self.wanted is None:
            return inputs, own
        at = self.wanted.to(inputs[0].device)
        return tuple(t[at] for t in inputs), None if own is None else own[at.to(own.device)]

    def described(self) -> dict[str, str]:
        """The model and how it is explained, as text: what must be equal for two runs to write to one store."""
        kind = type(self.model)
        return {
            "model": f"{kind.__module__}.{kind.__qualname__}",
            "weights": fingerprint(self.model),
            "composite": described(self.composite),
            "selection": described(self.selection),
            "target": described(self.target),
            "on_unsupported": self.on_unsupported,
        }


def _predicted(logits: Tensor) -> Tensor:
    if logits.ndim != 2:
        raise TargetError(
            f"the predicted class is explained of an output (N, classes), got {tuple(logits.shape)}; give a target, such as "
            "a function of the output"
        )
    return logits.argmax(1)


def _explained_class(target: Any, trace: Trace) -> Tensor:
    """``(N,)``, -1 if the explained value is not the output of one class."""
    logits = trace.logits
    given = target(trace.output) if callable(target) else target
    if isinstance(given, tuple) and len(given) == 1:
        given = given[0]
    if is_whole(given):
        given = torch.full((len(logits),), int(given))
    if given is None and logits.shape[1] == 1:
        given = torch.zeros(len(logits))
        return given.long().to(logits.device)
    if isinstance(given, Tensor) and given.numel() in (1, len(logits)) and not given.is_floating_point():
        return given.to(logits.device).long().flatten().expand(len(logits)).remainder(logits.shape[1])
    return torch.full((len(logits),), -1, device=logits.device)
