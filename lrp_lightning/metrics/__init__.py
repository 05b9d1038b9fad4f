"""Measures of critical neurons, as torchmetrics, and their formulas as functions.

With ``f`` the logits, ``f_S`` those with only the critical neurons ``S`` kept, over a validation set:

==========================  ==================================================================================
``CriticalNeuronAccuracy``  share of samples whose predicted class survives with only ``S``; control: ``RandomControl``
``ContestAccuracy``         share whose predicted class wins when each class has its own critical neurons
``RunnerUpAccuracy``        share in which the runner-up's own neurons make the runner-up win
``CircuitAgreement``        share whose class is recognised from one circuit per class, the same for all images
``LogitCorrelation``        correlation of the predicted class's logit in ``f_S`` and in ``f``
``Sufficiency``             probability that the predicted class loses with only ``S``
``Comprehensiveness``       probability that it loses with all but ``S``
``RetainedAccuracy``        accuracy against the labels with only ``S``
``AblatedAccuracy``         accuracy against the labels with all but ``S``
``SelectionError``          SMAPE or MSE between ``f_S`` and ``f``
``RetentionCurve``          accuracies over budgets, with areas and faithfulness
``SelectionStability``      Jaccard index of a class's critical neurons between two states
``ConservationError``       whether relevance is accounted for
==========================  ==================================================================================
"""

from lrp_lightning.metrics.accuracy import AblatedAccuracy, RetainedAccuracy, label_predicted
from lrp_lightning.metrics.conservation_error import ConservationError
from lrp_lightning.metrics.contest import (
    CircuitAgreement,
    ContestAccuracy,
    LogitCorrelation,
    RunnerUpAccuracy,
    circuits_agree,
    contest_won,
    runner_up,
    runner_up_wins,
)
from lrp_lightning.metrics.critical_neurons import CriticalNeuronAccuracy, RandomControl, prediction_survives
from lrp_lightning.metrics.rationales import Comprehensiveness, Sufficiency, probability_lost
from lrp_lightning.metrics.retention_curve import RetentionCurve, area, faithfulness
from lrp_lightning.metrics.selection_error import SelectionError, mse, smape
from lrp_lightning.metrics.selection_stability import SelectionStability, class_frequencies, jaccard

__all__ = [
    "AblatedAccuracy",
    "CircuitAgreement",
    "Comprehensiveness",
    "ConservationError",
    "ContestAccuracy",
    "CriticalNeuronAccuracy",
    "LogitCorrelation",
    "RandomControl",
    "RetainedAccuracy",
    "RetentionCurve",
    "RunnerUpAccuracy",
    "SelectionError",
    "SelectionStability",
    "Sufficiency",
    "area",
    "circuits_agree",
    "class_frequencies",
    "contest_won",
    "faithfulness",
    "jaccard",
    "label_predicted",
    "mse",
    "prediction_survives",
    "probability_lost",
    "runner_up",
    "runner_up_wins",
    "smape",
]
