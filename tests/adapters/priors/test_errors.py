"""Errors of all priors name the rule and what was found."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("zuko")

from adapters import TRIP, FlowPrior, GaussianMixturePrior, JointTRIP, VampPrior, VampTRIP  # noqa: E402
from tests.adapters.priors.cases import D, Encoder, encoder, make, mixed, nan  # noqa: E402


def gaussian_encoder(x):
    return torch.distributions.Normal(torch.zeros(len(x), D), 1.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: JointTRIP(3, []), ValueError, "there must be at least one attribute"),
        (lambda: JointTRIP(3, "continuous"), TypeError, "attributes must be a list .*, found 'continuous'"),
        (lambda: make("trip").half().log_prob(torch.zeros(1, D)), TypeError, "found parameters of torch.float16: keep"),
        (lambda: TRIP(0), ValueError, "num_latents must be at least 1, found 0"),
        (lambda: TRIP(2.5), TypeError, "num_latents must be an integer, found 2.5"),
        (lambda: TRIP(3, 0), ValueError, "num_components must be at least 1, found 0"),
        (lambda: TRIP(3, 2, 0), ValueError, "ranks must be at least 1"),
        (lambda: TRIP(3, 2, [2, 2]), ValueError, "one rank per bond"),
        (lambda: TRIP(3, 2, 2, order="best"), ValueError, "order must be one of random, given, found 'best'"),
        (lambda: TRIP(3, 2, 2, order=[0, 1, 1]), ValueError, "a permutation of the 3 columns"),
        (lambda: TRIP(3, 2, 2, topology="tree"), ValueError, "topology must be one of ring, train, found 'tree'"),
        (lambda: TRIP(3, 2, 2, nonnegative="relu"), ValueError, "nonnegative must be one of abs, softplus, exp"),
        (lambda: TRIP(3, 2, 2, mean_range=(1, 1)), ValueError, "mean_range must be two finite numbers"),
        (lambda: TRIP(3, 2, 2, std=0), ValueError, "std must be positive and finite, found 0"),
        (lambda: JointTRIP(3, [2, 0]), ValueError, "the size of an attribute must be at least 1, found 0"),
        (lambda: JointTRIP(3, ["real"]), ValueError, "must be one of continuous, found 'real'"),
        (lambda: JointTRIP(3, [2.5]), TypeError, "the size of an attribute must be an integer, found 2.5"),
        (
            lambda: mixed().log_prob(torch.zeros(2, D), torch.tensor([[0, 0.5], [0, math.inf]])),
            ValueError,
            "attribute 1 is a finite number, found inf in row 1",
        ),
        (lambda: GaussianMixturePrior(3, 0), ValueError, "num_components must be at least 1"),
        (lambda: VampPrior(3, (3,), 2), TypeError, "encoder must be callable, found int"),
        (lambda: VampPrior(encoder(), (3,), 2, bounds=(1, 0)), ValueError, "bounds must be two finite numbers"),
        (lambda: VampPrior(gaussian_encoder, (3,), 2).sample(1), TypeError, r"Independent\(Normal\), found Normal"),
        (lambda: VampPrior(encoder(), (3,), 3).sample(1), ValueError, r"event shape \(3,\), found \(2,\)"),
        (lambda: FlowPrior(3), TypeError, "base must be a Prior, found int"),
        (lambda: FlowPrior(make("trip"), "glow"), ValueError, "flow must be one of coupling, nsf, maf, found 'glow'"),
        (lambda: FlowPrior(make("trip"), 3), TypeError, "flow must be a name or a module, found int"),
        (
            lambda: FlowPrior(make("trip"), Encoder(), transforms=2),
            ValueError,
            "options belong to a flow given by name",
        ),
        (
            lambda: FlowPrior(make("trip"), "nsf", transformss=2),
            TypeError,
            "options of the flow 'nsf' must be those of zuko.flows.NSF, such as transforms=3 .*, found transformss",
        ),
        (lambda: FlowPrior(make("trip"), "maf", bins=4), TypeError, "those of zuko.flows.MAF, .* found bins"),
        (lambda: VampPrior(encoder(), 64, 2), TypeError, r"input_shape must be a sequence such as .*, found 64"),
        (lambda: VampTRIP(encoder(), "64", 2), TypeError, r"input_shape must be a sequence such as .*, found '64'"),
        (lambda: make("flow").log_prob(torch.tensor([[0.0, nan]])), ValueError, "cannot marginalise"),
        (lambda: make("flow").sample_given(torch.zeros(1, D)), NotImplementedError, "cannot sample given"),
        (
            lambda: make("trip").log_prob(np.zeros((1, D))),
            TypeError,
            "z must be a floating point tensor, found ndarray",
        ),
        (lambda: make("trip").log_prob(torch.zeros(1, D, dtype=int)), TypeError, "a tensor of torch.int64"),
        (lambda: make("trip").log_prob(torch.zeros(1, 3)), ValueError, r"z must have shape \(..., 2\), found \(1, 3\)"),
        (lambda: make("trip").sample(-1), ValueError, "n must be at least 0, found -1"),
        (lambda: make("trip").sample(2.0), TypeError, "n must be an integer, found 2.0"),
        (lambda: make("trip").sample(1, rng="x"), TypeError, "rng must be an integer, found 'x'"),
        (lambda: make("gaussian").kl(torch.zeros(1, 3), torch.ones(1, 3)), ValueError, "mean must have shape"),
        (
            lambda: make("joint").log_prob(torch.zeros(2, D), torch.tensor([[0, 1], [0, 3]])),
            ValueError,
            "attribute 1 takes integers 0..2, found 3 in row 1",
        ),
        (
            lambda: make("joint").log_prob(torch.zeros(2, D), torch.zeros(3, 2)),
            ValueError,
            r"as many rows as z, \(2,\), found \(3,\)",
        ),
        (lambda: make("joint").sample(2, torch.zeros(3)), ValueError, r"y must have shape \(..., 2\), found"),
    ],
)
def test_errors_name_rule_and_finding(call, error, message):
    with pytest.raises(error, match=message):
        call()
