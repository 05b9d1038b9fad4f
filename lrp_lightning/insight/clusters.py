"""Clusters of samples: a mixture of Gaussians, whose number is chosen by held-out samples, and membership of new samples."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold
from torch.special import gammainc

__all__ = ["FEWEST", "Clusters"]

FEWEST = 10
"""The least number of samples in a cluster."""
_COMPONENTS = 8
"""Number of principal components."""
_FOLDS = 5
_CLAIMED = 0.999
"""The share of a Gaussian's samples within the bounds of a cluster."""


class Clusters:
    """Clusters of some samples, without those that have too few members.

    Their number is the smallest whose held-out likelihood is within one standard error of the best.

    Args:
        features: ``(N, F)``.
        most: the largest number of clusters.
        seed: for the fits.

    Attributes:
        groups: the members of each cluster, ``(N,) bool``.
        typical: the numbers of all samples, ``(N,)``, most typical first.
    """

    def __init__(self, features: np.ndarray, most: int, seed: int) -> None:
        n = len(features)
        self._pca = PCA(min(_COMPONENTS, n - 1, features.shape[1]), random_state=seed).fit(features)
        self._scale = max(self._pca.transform(features)[:, 0].std(), 1e-12)
        reduced = self._reduced(features)

        def mixture(k: int, starts: int = 1) -> GaussianMixture:
            return GaussianMixture(k, covariance_type="diag", reg_covar=1e-4, n_init=starts, random_state=seed)

        folds = list(KFold(_FOLDS, shuffle=True, random_state=seed).split(reduced))
        tried = [k for k in range(1, most + 1) if n >= 2 * FEWEST * k or k == 1]
        scores = np.array([[mixture(k).fit(reduced[a]).score(reduced[b]) for a, b in folds] for k in tried])
        best = scores.mean(1).argmax()
        enough = scores[best].mean() - scores[best].std(ddof=1) / _FOLDS**0.5
        k = tried[int(np.argmax(scores.mean(1) >= enough))]
        self._mixture = mixture(k, starts=4).fit(reduced)
        of = self._mixture.predict(reduced)
        self._kept = [cluster for cluster in range(k) if (of == cluster).sum() >= min(FEWEST, n)]
        self.groups = [of == cluster for cluster in self._kept]
        self.typical = np.argsort(-self._mixture.score_samples(reduced), kind="stable")

    def alike(self, other: Clusters) -> bool:
        """Whether the groups are equal."""
        return {group.tobytes() for group in self.groups} == {group.tobytes() for group in other.groups}

    def _reduced(self, features: np.ndarray) -> np.ndarray:
        return self._pca.transform(features) / self._scale

    def likelihood(self, features: np.ndarray) -> np.ndarray:
        """``(M,)``: the log density of other samples under the mixture."""
        return self._mixture.score_samples(self._reduced(features))

    def claim(self, features: np.ndarray) -> np.ndarray:
        """``(M,)``: the cluster that contains each of other samples, as an index into ``groups``; -1 if no cluster does.

        A cluster contains a sample if its squared Mahalanobis distance is below the 99.9 % quantile for a Gaussian.
        """
        reduced = self._reduced(features)
        means, variances = self._mixture.means_[self._kept], self._mixture.covariances_[self._kept]
        distance = ((reduced[:, None] - means) ** 2 / variances).sum(2)
        nearest = torch.from_numpy(distance.min(1))
        freedom = torch.tensor(reduced.shape[1], dtype=nearest.dtype)
        nearer = gammainc(freedom / 2, nearest / 2)  # the chi-squared distribution
        return np.where(nearer.numpy() <= _CLAIMED, distance.argmin(1), -1)
