"""Measures of critical neurons, as torchmetrics; their formulas as functions beside them.

With ``f`` the logits, ``f_S`` those with only the critical neurons ``S`` kept, over a validation set:

==========================  ==================================================================================
``CriticalNeuronAccuracy``  share of samples whose predicted class survives with only ``S``; ``RandomControl`` beside it
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
from lrp_lightning.metrics.critical_neurons import CriticalNeuronAccuracy, RandomControl, prediction_survives
from lrp_lightning.metrics.retention_curve import RetentionCurve, area, faithfulness
from lrp_lightning.metrics.selection_error import SelectionError, mse, smape
from lrp_lightning.metrics.selection_stability import SelectionStability, class_frequencies, jaccard

__all__ = [
    "AblatedAccuracy",
    "ConservationError",
    "CriticalNeuronAccuracy",
    "RandomControl",
    "RetainedAccuracy",
    "RetentionCurve",
    "SelectionError",
    "SelectionStability",
    "area",
    "class_frequencies",
    "faithfulness",
    "jaccard",
    "label_predicted",
    "mse",
    "prediction_survives",
    "smape",
]
