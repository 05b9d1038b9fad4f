"""The path of :mod:`lrp_lightning.selection.min_error` in version 0.1; it is removed in 0.4."""

import warnings

from lrp_lightning.selection.min_error import MinError, Smallest

__all__ = ["MinError", "Smallest"]

warnings.warn(
    "lrp_lightning.min_error is lrp_lightning.selection.min_error since 0.2, and goes in 0.4; MinError itself is "
    "imported from lrp_lightning",
    DeprecationWarning,
    stacklevel=2,
)
