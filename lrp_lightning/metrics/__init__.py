"""Measures of critical neurons, as torchmetrics; their formulas as functions beside them."""

from lrp_lightning.metrics.critical_neurons import CriticalNeuronAccuracy, prediction_survives

__all__ = ["CriticalNeuronAccuracy", "prediction_survives"]
