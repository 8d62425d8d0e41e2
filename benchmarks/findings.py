"""What each page of results opens with: its finding, whose numbers stand in the page's own tables."""

from __future__ import annotations

import re

FINDINGS = {
    "acceleration": """\
On two CPU cores compilation gives 1.13 times the speed on the digits and no gain on MNIST (0.991). Training in
bfloat16 is slower there in every form.""",
    "backends": """\
NumPy and PyTorch need about the same time. JAX evaluates a likelihood 4.55 times as fast as PyTorch at rank 1, but at
0.27 times its speed at rank 100.""",
    "checks-cuda": """\
The first runs on an H100 found one query that differs from the CPU, `mode`, and 41 failing tests among those of the
repository (1081 passed). They have been repaired since.""",
    "codes": """\
On codes of a VAE of the digits, a Gaussian mixture with full covariances has the highest log-likelihood (−9.70 nats per
code). A CP ring under a flow comes next (−9.93). Without the flow it reaches −9.99, as a mixture with diagonal
covariances and a ring of switching cores do (−9.99), the latter in a sixth of the parameters of CP cores. A flow alone
reaches −10.18, a ring of dense cores −10.21. On codes of MNIST (one seed, without flows), full covariances are ahead
too (−50.64), before a switching ring that represents a mixture of 400 components (−51.44) and rings of CP (−53.04) and
dense cores (−55.34).""",
    "conditional": """\
A train of switching cores whose decoder sees the attributes too, trained in two phases, satisfies the most requests on
MNIST with all attributes known (0.927 ± 0.009; TELBO 0.872 ± 0.016, with our second phase 0.896 ± 0.016) and with 90 %
of them missing (0.946 ± 0.003, as many as real images have, 0.946; TELBO 0.782 ± 0.035 and 0.922 ± 0.008). With 99 %
missing it has 0.914 ± 0.008; TELBO 0.709 ± 0.037, and with our second phase 0.918 ± 0.004, level within the spread of
seeds, at a Fréchet distance of 96.05 ± 35.21 instead of 54.50 ± 18.39 and with less variety in what is left free (digit
0.764 ± 0.045 instead of 0.956 ± 0.003). On faces it has 0.717 ± 0.003 at 4.94 ± 1.37 with 90 % missing (TELBO
0.570 ± 0.034 at 10.87 ± 1.22) and 0.645 ± 0.022 at 7.10 ± 0.92 with 99 % (JMVAE 0.459 at 14.73, one seed); with
all known it has 0.724 ± 0.010 at 3.11 ± 0.07, and TELBO 0.737 ± 0.018 at 7.93 ± 0.48, both more than real images
(0.692). On the digits, with all attributes known, it is level with CVAE (0.920 ± 0.006 and 0.935 ± 0.023) at a Fréchet
distance of 21.66 ± 4.94 instead of 46.12 ± 8.78. With 90 % missing it satisfies more than each rival in one phase
(0.783 ± 0.014; CVAE 0.753 ± 0.016), and less than CVAE with the labels of our second phase (0.850 ± 0.010), whose
distance is larger (53.93 ± 2.07 instead of 34.40 ± 8.92). With 99 % missing no model satisfies half of the requests
(0.427 ± 0.036; JMVAE 0.417 ± 0.006, at twice the distance).""",
    "continuous": """\
In raw coordinates, rings have a lower likelihood than a Gaussian mixture with full covariances: 21.14 and 28.02 nats
per test row of the breast-cancer table. In principal axes theirs is higher: 31.77 nats there, and −245.91 instead of
−247.98 on image patches.""",
    "cores": """\
In a train of rank 100, CP cores evaluate a likelihood 3.28 times and take a training step 3.11 times as fast as dense
cores. In a full ring both kinds take about the same time.""",
    "density": """\
`rd.autofit` reaches −12.363 nats per test row on Plants, −51.883 on Jester and −5.993 on NLTCS, above the published
circuits (−14.3, −52.5, −6) and tensor trains (−13.9, −53.8, −6.01). It misses its goals on NLTCS and on the
haplotypes.""",
    "em": """\
An EM step of a hidden Markov model of 64 states is 5.32 times as fast as that of hmmlearn. A gradient step is 7.7 times
as fast as cirkit's and 5.23 times as fast as tensorkrowch's at rank 64. The cost grows linearly with rows and
columns.""",
    "gan": """\
In a WGAN-GP on the digits no learned prior is better than N(0, I) beyond the spread of seeds: the Fréchet distances are
5.56 ± 1.69 for a TRIP with the hybrid estimator and 6.20 ± 3.31 for N(0, I); in the second edition 7.26 ± 2.49 for a
TRIP that starts from codes, 5.52 ± 1.78 if it stays as it was, and 6.28 ± 2.56 for N(0, I). The start from codes raises
the precision (0.610 ± 0.028 instead of 0.550 ± 0.020) and lowers the recall (0.817 ± 0.036 instead of 0.907 ± 0.007).
On MNIST, with three seeds, the start from codes lowers the distance: 27.62 ± 0.90 if the TRIP learns on, 32.69 ± 2.86
if it stays as it was, 36.10 ± 2.01 for N(0, I). The recall falls there too (0.579 ± 0.012; N(0, I) 0.752 ± 0.021).
The TRIP adds 10% to the time of a training round.""",
    "gan-ttur": """\
With two time scales N(0, I) has the lowest Fréchet distance (16.92 ± 3.22). The learned TRIP has the highest
(52.06 ± 10.95).""",
    "genomes": """\
A train imputes 75.76% of the hidden alleles correctly; the copying model of Li and Stephens imputes 74.96%. The train
needs 0.308 s for all test haplotypes, the copying model 24.1 s.""",
    "gradients": """\
No estimator wins everywhere. *Pathwise* has the lowest variance while the modes overlap, but takes twice the time, and
its variance grows without bound with the gap between modes. *Hybrid*, the default, costs as much as the paper's
estimator; at batch size 32 its variance for the means is 0.552 instead of 58.9.""",
    "memory": """\
Recomputing products reduces the memory of a training step at rank 100 from 1166 MB to 162 MB; the step takes 3.18
instead of 2.59 forward passes. EM on a file of 10 000 000 rows needs 89.3 MB.""",
    "mixed": """\
Rings impute numeric entries about as well as KNNImputer. IterativeImputer is better on the breast-cancer table (RMSE
0.431; best train 0.560) and worse on wine (0.869; 0.741) and on the digits (0.862; 0.722).""",
    "ordering": """\
The order of the columns matters: on Plants a ring of rank 4 reaches −15.67 nats per row in the order by mutual
information, and −23.05 in random orders. The search recovers the hidden order of a synthetic circle.""",
    "precision": """\
At rank 100 TF32 products change a log-likelihood by 0.000738 nats in the mean, bfloat16 products by 0.0046 nats.""",
    "precision-cuda": """\
At rank 100 TF32 products change a log-likelihood by 0.000739 nats in the mean, bfloat16 products by 0.0046 nats. With
`"high"` a likelihood takes 58.8 ms instead of 68.6 ms.""",
    "profile": """\
At rank 100 matrix products take 86% of the time of a likelihood. At rank 1 they take 3%; the rest is spent in library
calls and in Python.""",
    "rank": """\
On the digits the bound rises from −85.02 nats at rank 1 to −84.54 at rank 5 and does not improve beyond. Refitting the
ring by EM gains more: −84.19 at rank 8.""",
    "scaling": """\
The time of a likelihood grows with the number of columns to the power 1.03 in rings and 1.02 in trains, up to 100 000
columns, and with the rank to the power 2.49 in rings and 2.37 in trains.""",
    "scaling-cuda": """\
A likelihood of 32 rows of 1000 columns takes 9.79 ms at rank 10 and, for 12 columns, 21.8 ms at rank 512. Rings of
100 000 columns exceeded the 30 s that one measurement may take.""",
    "sequences": """\
A tied train of rank 128 reaches −1.704 nats per character, between a 3-gram (−1.746) and a 4-gram (−1.392), and
predicts 66.0% of hidden characters. Its EM is 5.9 times as fast as that of hmmlearn.""",
    "speed": """\
Compared with the official code, a likelihood is 2.17 to 3.23 times as fast, sampling 3.46 to 171 times, and a training
step 2.85 to 6.66 times. A training step at rank 100 needs 291 MB instead of 2388 MB.""",
    "speed-cuda": """\
Replayed as a CUDA graph, a likelihood is 8.8 to 163 times as fast as the official code, a training step 8.4 to 174
times. Without a graph they are 1.03 to 9.04 and 1.78 to 10.6 times as fast.""",
    "synthetic": """\
Gradient boosting tells rows that a ring draws from real ones with an accuracy of 0.618 on adult and 0.678 on
california (0.5: not at all; TVAE 0.989 and 0.939, a Gaussian copula 0.998 and 0.950). Under a rare condition the ring
draws 200 rows in 0.0505 s, all of them valid; the copula and TVAE draw 40 000 and 100 000 rows to find as many.""",
    "tables": """\
`TensorRingDensity` has the highest density on 13 of 13 tables. Its accuracy is at most 0.02 below that of gradient
boosting on 11 of 11 tables. Its imputation error is no larger than those of KNNImputer and IterativeImputer in 20 of 26
cases; in three of the others it exceeds them by a thousandth at most. The share of hidden values inside intervals of
80 % is between 0.75 and 0.85 in 22 of 26 cases.""",
    "topology": """\
On cyclic data a ring of rank 6 gains over a train with as many parameters: +0.494 nats per row on a closed chain and
+0.340 on closed contours. On open chains and lines it gains nothing.""",
    "vae": """\
On MNIST, with three seeds and equal updates, a TRIP of switching cores reaches −89.18 ± 0.10 nats, more than VampPrior
(−89.49 ± 0.17), VampTRIP (−89.60 ± 0.22), a mixture of 1 000 components (−89.69 ± 0.18) and a flow (−89.90 ± 0.43).
Under a flow it reaches −88.49 ± 0.15, and a mixture −88.42 ± 0.03, level within the spread; a TRIP of CP cores
−89.13 ± 0.14. CP cores alone (−90.17 ± 0.22), dense cores fitted by EM (−90.71 ± 0.22), the paper's procedure
(−92.59 ± 0.43) and N(0, I) (−93.72 ± 0.19) follow. At equal time, where no model has converged and what an update costs
decides, a mixture that a TRIP of switching cores goes on from reaches −87.60 ± 0.00, a mixture alone −87.79 ± 0.42,
level within the spread, and a mixture under a flow −87.30 ± 0.01 (two seeds each). A flow over CP cores
(−88.04 ± 0.11), VampPrior (−88.16 ± 0.17), the flow (−88.46 ± 0.57), a flow over switching cores (−88.47 ± 0.09) and
switching cores from the beginning (−89.18), the slowest, follow. On the digits, TRIPs of CP cores (−83.77 ± 0.27) and
of switching cores (−83.96 ± 0.18) and a VampPrior (−83.69 ± 0.29) are equal within the spread of seeds (N(0, I):
−85.58). As the base of a flow, TRIPs raise the bound from −84.45 to −83.88 and −83.76.""",
}


def finding(name: str, tables: str) -> str:
    """The finding of a page, or nothing where the page's tables no longer have its numbers: then it is out of date."""
    text = FINDINGS.get(name, "")
    known = set(numbers(tables))
    return text if all(number in known for number in numbers(text)) else ""


def numbers(text: str) -> list[str]:
    """The numbers in a text, as they are written but for minus signs and spaces between thousands."""
    plain = re.sub(r"(?<=\d) (?=\d{3}\b)", "", text.replace("−", "-"))
    return [number.lstrip("+") for number in re.findall(r"(?<![\w.-])[+-]?\d+(?:\.\d+)?(?!\w)", plain)]
