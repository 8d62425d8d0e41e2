"""Averages of weights, and priors whose ring is re-ordered while they are taken."""

import copy
import gc
import pickle

import pytest

pytest.importorskip("lightning")

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from adapters import TRIP, FlowPrior, JointTRIP
from adapters.callbacks import Reinitialize, SeededSteps
from adapters.data import Digits
from adapters.models import VAE
from adapters.networks import ConvDecoder, ConvEncoder
from tests.lightning_warnings import IGNORED

pytestmark = [
    *IGNORED,
    pytest.mark.filterwarnings("ignore:.*parameters of type:UserWarning"),
]

MESSAGE = "averages over a re-ordering of the ring"


def codes(n=300):
    """Dimensions 0 and 2 belong together, and so do 1 and 3."""
    pair = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    noise = 0.1 * torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
    return torch.cat([pair, pair + noise], 1)


def step(prior):
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.mul_(1.01)


def trip():
    return TRIP(4, 3, 2, order="given", mean_range=(-2, 2))


PRIORS = {
    "trip": trip,
    "joint": lambda: JointTRIP(4, [2], 3, 2, order="given"),
    "in a module": lambda: torch.nn.ModuleDict({"prior": trip()}),
    "under a flow": lambda: FlowPrior(trip(), transforms=1, hidden_features=(4,)),
}


def ring_of(module):
    if isinstance(module, torch.nn.ModuleDict):
        return module["prior"]
    return module.base if isinstance(module, FlowPrior) else module


def reorder(module, to="mutual_information"):
    prior, before = ring_of(module), ring_of(module).order.tolist()
    prior.reinitialize(codes(), method="gmm", order=to)
    return before != prior.order.tolist()


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("kind", ["equal", "ema"])
def test_an_average_over_a_reordering_is_refused(name, kind):
    module = PRIORS[name]()
    options = {"multi_avg_fn": get_ema_multi_avg_fn(0.9)} if kind == "ema" else {}
    average = AveragedModel(module, **options)
    for _ in range(2):
        step(module)
        average.update_parameters(module)
    ring_of(average.module).log_prob(codes())
    assert reorder(module)
    ring_of(average.module).log_prob(codes())  # of the old order still
    average.update_parameters(module)
    for query in (lambda p: p.log_prob(codes()), lambda p: p.sample(2), lambda p: p.ring):
        with pytest.raises(ValueError, match=MESSAGE):
            query(ring_of(average.module))
    fresh = AveragedModel(module)
    for _ in range(3):
        fresh.update_parameters(module)
    found = ring_of(fresh.module).log_prob(codes())
    torch.testing.assert_close(found, ring_of(module).log_prob(codes()))
    average.module.load_state_dict(module.state_dict())  # which has all of one order
    torch.testing.assert_close(ring_of(average.module).log_prob(codes()), found)


def test_an_average_that_begins_after_the_reordering_is_right():
    prior = trip()
    average = AveragedModel(prior)
    assert reorder(prior)
    before = [parameter.clone() for parameter in prior.parameters()]
    average.update_parameters(prior)
    step(prior)
    average.update_parameters(prior)
    assert average.module.ring.order == tuple(prior.order.tolist())
    for found, first, second in zip(average.module.parameters(), before, prior.parameters(), strict=True):
        torch.testing.assert_close(found.data, (first + second.data) / 2)
    average.module.log_prob(codes())


def test_a_fit_in_the_same_order_may_be_averaged():
    prior = trip()
    average = AveragedModel(prior)
    for _ in range(2):
        prior.reinitialize(codes(), method="gmm")
        average.update_parameters(prior)
    assert average.module.log_prob(codes()).isfinite().all()


def test_copies_are_independent_and_are_not_kept_alive():
    prior = trip()
    other = copy.deepcopy(prior)
    step(other)
    assert reorder(prior)
    other.log_prob(codes())
    assert reorder(other)  # by itself
    assert torch.equal(other.order, prior.order) and other.log_prob(codes()).isfinite().all()
    again = pickle.loads(pickle.dumps(prior))
    assert torch.equal(again.log_prob(codes()), prior.log_prob(codes()))
    assert len(prior._copies) == 1
    del other
    gc.collect()
    assert len(prior._copies) == 0


def test_an_order_that_is_not_one_is_refused():
    prior = trip()
    prior.order.copy_(torch.tensor([0, 1, 1, 2]))
    with pytest.raises(ValueError, match="a permutation of the 4 columns"):
        prior.sample(1)


def run(folder, *callbacks, epochs=3):
    torch.manual_seed(0)
    model = VAE(ConvEncoder((1, 8, 8), 8, (4, 8)), ConvDecoder(4, (1, 8, 8), (4, 8)), trip())
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[SeededSteps(), *callbacks],
        limit_train_batches=3,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        default_root_dir=folder,
    )
    trainer.fit(model, Digits(batch_size=100))
    return model


def ordered(**options):
    return Reinitialize(method="gmm", num_codes=200, **{"order": "mutual_information", "every": 1} | options)


class Later(WeightAveraging):
    """From the second epoch on."""

    def should_update(self, step_idx=None, epoch_idx=None):
        return step_idx is not None and step_idx >= 3


@pytest.mark.parametrize(
    ("average", "message"),
    [
        (
            lambda: StochasticWeightAveraging(1e-3, swa_epoch_start=2),
            "Stochastic.* from epoch 1 on, but before",
        ),
        (lambda: StochasticWeightAveraging(1e-3, swa_epoch_start=0.7), "from epoch 1 on, but before epoch 1"),
        (WeightAveraging, "WeightAveraging averages weights from epoch 0 on, but before epoch 1"),
        (Later, "Later has averaged weights when the ring is to be re-ordered"),
    ],
)
def test_callbacks_that_average_over_a_reordering(average, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, average(), ordered())


@pytest.mark.parametrize(
    ("average", "options"),
    [
        (lambda: StochasticWeightAveraging(1e-3, swa_epoch_start=3), {"last": 1}),
        (lambda: EMAWeightAveraging(update_starting_at_step=4, use_buffers=False), {"last": 1}),
        (WeightAveraging, {"order": None}),
    ],
)
def test_callbacks_that_average_what_belongs_together(average, options, tmp_path):
    model = run(tmp_path, average(), ordered(**options))
    assert model.prior.log_prob(codes()).isfinite().all() and model.sample(2).isfinite().all()
