"""The sequence of the columns around a ring, for `TensorRing(..., order=...)`.

Dependence between columns passes through all bonds between them. If dependent columns are neighbours, the same ranks
fit more of it. An order is found from data in two steps. `dependence` estimates the mutual information of all pairs of
columns, as for the trees of Chow & Liu 1968, *Approximating discrete probability distributions with dependence trees*.
`tour` then searches the closed tour, or for a train the open path, whose neighbours share the most mutual information;
with `reach`, columns a few places apart count too. `diverse` finds several orders for a mixture of rings.

An order can also be derived from a fitted ring: `tour(ring.mutual_information())`.
"""

from ringdist.ordering.information import dependence
from ringdist.ordering.tours import diverse, mutual_information, random, score, tour

__all__ = ["dependence", "diverse", "mutual_information", "random", "score", "tour"]
