"""The explanations of a data set on disk: a folder of HDF5 files, written sample by sample and read lazily."""

from lrp_lightning.store.relevance_store import RelevanceStore, StoredRows

__all__ = ["RelevanceStore", "StoredRows"]
