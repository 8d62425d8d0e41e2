"""Covariances with few factors: w columns depend on q hidden factors, and each column has its own noise.

    x = μ + Λ z + ε,  z ~ N(0, I_q),  ε ~ N(0, Ψ), Ψ diagonal,  so that  Σ = Λ Λᵀ + Ψ

These are w (q + 1) parameters instead of w (w + 1) / 2. The model is factor analysis, or a mixture of factor analysers
if every component has such a covariance (Ghahramani and Hinton 1996). The log-likelihood −(log det Σ + tr Σ⁻¹ S) / 2 of
a scatter matrix S is maximised in Λ and in Ψ alternately (ECME, Liu and Rubin 1994):

- given Ψ the best Λ is Ψ^½ U (D − I)₊^½, with the q greatest eigenvalues D and eigenvectors U of Ψ^-½ S Ψ^-½;
- for this Λ the step of EM is Ψ ← diag(S − Λ Λᵀ).

No step decreases the likelihood. The first step depends on Ψ only, and is at least as good as any previous Λ.
"""

from __future__ import annotations

from ringdist.backend import Array, namespace, value_range

STEPS = 10  # of an M-step, which starts from the noise of the previous one
FIRST_STEPS = 200  # if covariances have no factors yet
FIRST_NOISE = 0.5  # share of a column's variance; noise near 0 would grow very slowly


def factored(scatter: Array, noise: Array, least: Array, num_factors: int, steps: int) -> tuple[Array, Array]:
    """Covariances Λ Λᵀ + Ψ (N, w, w) of high likelihood, and the diagonals of Ψ, (N, w).

    No covariances with the given noise and as many factors have a higher likelihood.

    Args:
        scatter: S (N, w, w), symmetric. noise: (N, w) to start from. least: (N, w), positive; Ψ is at least its square.
    """
    xp = namespace(scatter, noise, least)
    variances, floor = xp.linalg.diagonal(scatter), least * least
    noise = xp.maximum(noise, floor)
    for _ in range(steps):
        loadings = _loadings(scatter, noise, num_factors)
        noise = xp.maximum(variances - xp.sum(loadings * loadings, axis=-1), floor)
    loadings = _loadings(scatter, noise, num_factors)
    covariances = loadings @ loadings.mT
    places = value_range(noise.shape[1], noise)
    return xp.where(places[:, None] == places, covariances + noise[:, :, None], covariances), noise


def _loadings(scatter: Array, noise: Array, num_factors: int) -> Array:
    """The best Λ for this noise, (N, w, w); all columns but the last `num_factors` are 0."""
    xp, stds = namespace(scatter, noise), namespace(noise).sqrt(noise)
    values, vectors = xp.linalg.eigh(scatter / stds[:, :, None] / stds[:, None, :])  # the greatest last
    width = noise.shape[1]
    chosen = value_range(width, noise) >= width - num_factors
    lengths = xp.sqrt(xp.where(chosen, xp.clip(values - 1.0, min=0.0), 0.0))
    return stds[:, :, None] * vectors * lengths[:, None, :]
