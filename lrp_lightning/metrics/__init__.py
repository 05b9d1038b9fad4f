"""Measures of critical neurons, as torchmetrics; their formulas as functions beside them.

With ``f`` the logits, ``f_S`` those with only the critical neurons ``S`` kept, over a validation set:

==========================  ==================================================================================
``CriticalNeuronAccuracy``  share of samples whose predicted class survives with only ``S``; ``RandomControl`` beside it
``ContestAccuracy``         share whose prediction wins where each class has its own critical neurons
``RunnerUpAccuracy``        share that the runner-up's own neurons turn into the runner-up
``RetainedAccuracy``        accuracy against the labels with only ``S``
``AblatedAccuracy``         accuracy against the labels with all but ``S``
``SelectionError``          SMAPE or MSE between ``f_S`` and ``f``
``RetentionCurve``          all of it over budgets, with areas and faithfulness
``SelectionStability``      Jaccard index of a class's critical neurons between two states
``ConservationError``       whether relevance is accounted for
==========================  ==================================================================================
"""

from lrp_lightning.metrics.accuracy import AblatedAccuracy, RetainedAccuracy, label_predicted
from lrp_lightning.metrics.conservation_error import ConservationError
from lrp_lightning.metrics.contest import ContestAccuracy, RunnerUpAccuracy, contest_won, runner_up, runner_up_wins
from lrp_lightning.metrics.critical_neurons import CriticalNeuronAccuracy, RandomControl, prediction_survives
from lrp_lightning.metrics.retention_curve import RetentionCurve, area, faithfulness
from lrp_lightning.metrics.selection_error import SelectionError, mse, smape
from lrp_lightning.metrics.selection_stability import SelectionStability, class_frequencies, jaccard

__all__ = [
    "AblatedAccuracy",
    "ConservationError",
    "ContestAccuracy",
    "CriticalNeuronAccuracy",
    "RandomControl",
    "RetainedAccuracy",
    "RetentionCurve",
    "RunnerUpAccuracy",
    "SelectionError",
    "SelectionStability",
    "area",
    "class_frequencies",
    "contest_won",
    "faithfulness",
    "jaccard",
    "label_predicted",
    "mse",
    "prediction_survives",
    "runner_up",
    "runner_up_wins",
    "smape",
]
