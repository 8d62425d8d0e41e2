"""In which sequence the columns follow each other around a ring: `TensorRing(..., order=...)`.

Every bond carries all the dependence between the two arcs that it joins, and dependence weakens with the distance in
the ring. An order that places dependent columns side by side therefore fits more with the same ranks. It is found from
data in two steps: the mutual information of all pairs of columns (`dependence`), as for the trees of Chow & Liu 1968,
*Approximating discrete probability distributions with dependence trees*; then the closed tour, or for a train the open
path, whose neighbours share most of it (`tour`), with `reach` also columns a few places apart. A mixture of rings has
several orders (`diverse`).

An order can also be read off a fitted ring: `tour(ring.mutual_information())`.
"""

from ringdist.ordering.information import dependence
from ringdist.ordering.tours import diverse, mutual_information, random, score, tour

__all__ = ["dependence", "diverse", "mutual_information", "random", "score", "tour"]
