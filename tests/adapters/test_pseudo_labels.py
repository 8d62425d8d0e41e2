"""Labels predicted from codes: which are filled, by what rule, and what stays as it was."""

import math

import pytest

pytest.importorskip("lightning")

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.svm import SVC

from adapters import TRIP, JointTRIP
from adapters.data import Digits
from adapters.models import TELBO, VAE, ConditionalVAE
from adapters.networks import ConvDecoder, ConvEncoder
from adapters.prior_phase import fit_prior
from adapters.pseudo_labels import complete_labels
from tests.lightning_warnings import IGNORED

pytestmark = IGNORED

LATENTS = 4
DIGIT = ["digit"]


def networks():
    torch.manual_seed(0)
    return ConvEncoder((1, 8, 8), 2 * LATENTS, (4, 8), "batch"), ConvDecoder(LATENTS, (1, 8, 8), (4, 8))


def conditional(attributes=(10,)):
    return ConditionalVAE(*networks(), JointTRIP(LATENTS, list(attributes), 4, 3))


MODELS = {
    "VAE": lambda: VAE(*networks(), TRIP(LATENTS, 4, 3)),
    "ConditionalVAE": conditional,
    "TELBO": lambda: TELBO(*networks(), LATENTS, [10]),
}


@pytest.mark.parametrize("name", MODELS)
def test_unknown_labels_are_those_of_a_classifier_of_mean_codes_and_pixels(name):
    model, data = MODELS[name](), Digits(missing=0.8)
    data.setup()
    before, state = data.splits["train"].attributes.clone(), [p.clone() for p in model.parameters()]
    model.train()
    found = complete_labels(model, data).splits["train"]

    known = ~before[:, 0].isnan()
    with torch.no_grad():
        codes = model.eval().encoder(data.splits["train"].images.float() / (data.levels - 1)).mean.numpy()
    pixels = PCA(32).fit_transform(data.splits["train"].images.flatten(1).numpy())
    codes, pixels = (codes - codes.mean(0)) / codes.std(0), pixels / pixels.var(0, ddof=1).sum() ** 0.5
    squares = [cdist(rows, rows, "sqeuclidean") for rows in (codes, pixels)]
    kernel = np.exp(-squares[0] / (4 * LATENTS) - squares[1] / 2)
    machine = SVC(C=10, kernel="precomputed").fit(kernel[known][:, known], before[known, 0])
    expected = torch.where(known, before[:, 0], torch.from_numpy(machine.predict(kernel[:, known])))
    assert (found.attributes[:, 0] == expected).float().mean() > 0.998  # ties may break either way
    assert torch.equal(found.attributes[known], before[known])
    assert torch.equal(data.splits["train"].attributes.nan_to_num(-1), before.nan_to_num(-1))  # not written to
    assert found.images is data.splits["train"].images
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), state, strict=True))


def test_predictions_are_far_better_than_chance():
    data, model = Digits(missing=0.8), conditional()
    found, truth = complete_labels(model, data), Digits()
    truth.setup()
    unknown = data.splits["train"].attributes.isnan()
    right = found.splits["train"].attributes[unknown] == truth.splits["train"].attributes[unknown]
    assert right.float().mean() > 0.5  # of ten digits, from an encoder that has learned nothing


def test_labels_of_validation_images_are_hidden_too():
    data, truth = Digits(missing=0.8, validation=600), Digits(validation=600)
    found = complete_labels(conditional(), data)
    truth.setup()
    changed = (found.splits["val"].attributes != truth.splits["val"].attributes).float().mean()
    assert 0.02 < changed < 0.5 and not found.splits["val"].attributes.isnan().any()
    assert found.splits["test"].attributes is data.splits["test"].attributes
    assert found.missing == 0.0 and data.missing == 0.8


def test_known_labels_stay():
    data = Digits()
    found = complete_labels(conditional(), data)
    for stage in ("train", "val"):
        assert torch.equal(found.splits[stage].attributes, data.splits[stage].attributes)


def test_a_continuous_attribute_and_one_without_labels_stay_unknown():
    data = Digits(missing=0.5, strokes=True, keep=["digit", "thickness", "slant"])
    data.setup()
    split = data.splits["train"]
    attributes = split.attributes.clone()
    attributes[:, 2] = math.nan
    data.splits["train"] = split._replace(attributes=attributes)
    found = complete_labels(conditional([10, "continuous", 3]), data).splits["train"].attributes
    assert not found[:, 0].isnan().any()
    assert torch.equal(found[:, 1].isnan(), attributes[:, 1].isnan()) and found[:, 2].isnan().all()


def test_the_number_of_labelled_images_is_limited(monkeypatch):
    seen = []
    plain = SVC.fit

    def fit(self, x, y):
        seen.append(len(y))
        return plain(self, x, y)

    monkeypatch.setattr(SVC, "fit", fit)
    parts = [complete_labels(conditional(), Digits(missing=0.5), max_labels=50, seed=seed) for seed in (0, 0, 1)]
    assert seen == [50, 50, 50]
    labels = [part.splits["train"].attributes for part in parts]
    assert torch.equal(labels[0], labels[1]) and not torch.equal(labels[0], labels[2])


@pytest.mark.parametrize("keep", [["digit"], ["slant"]])
def test_what_is_dropped_is_least_sure(keep):
    """The same labels, without a share of the predictions of each value; what is left is right more often."""
    data, truth = (Digits(missing=share, strokes=True, keep=keep, validation=400) for share in (0.9, 0.0))
    truth.setup()
    right = truth.splits["train"].attributes[:, 0]
    model = conditional([int(right.max()) + 1])
    every, clear = (complete_labels(model, data, drop=drop).splits for drop in (0.0, 0.3))
    known = ~data.splits["train"].attributes[:, 0].isnan()
    labels = every["train"].attributes[:, 0]
    dropped = sum(math.ceil(0.3 * int((labels[~known] == value).sum())) for value in labels[~known].unique())
    assert len(clear["train"].images) == len(labels) - dropped and len(clear["val"].images) < len(every["val"].images)
    assert clear["test"] is data.splits["test"]

    images = {image.numpy().tobytes(): i for i, image in enumerate(every["train"].images)}
    rows = torch.tensor([images[image.numpy().tobytes()] for image in clear["train"].images])
    assert torch.equal(rows, rows.sort().values) and set(known.nonzero()[:, 0].tolist()) <= set(rows.tolist())
    assert torch.equal(clear["train"].attributes, every["train"].attributes[rows])
    assert (labels == right)[rows].float().mean() > (labels == right).float().mean() + 0.02


def test_a_prior_learns_from_completed_labels():
    """With a label for every image, p(z | y) of the ring tells the digits of new images apart better."""
    scores = []
    for completed in (False, True):
        model, data = conditional(), Digits(missing=0.95, batch_size=256)
        torch.manual_seed(1)
        fit_prior(model, complete_labels(model, data) if completed else data, 8, learning_rate=0.05, accelerator="cpu")
        data.setup()
        test = data.splits["test"]
        tables = model.eval().predict(test.images.float() / (data.levels - 1))
        scores.append((tables[0].argmax(-1) == test.attributes[:, 0]).float().mean().item())
    assert scores[1] > scores[0] + 0.03, scores


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: complete_labels(TRIP(3), Digits()), TypeError, "model must be a VAE, found TRIP"),
        (lambda: complete_labels(conditional(), Digits(), max_labels=0), ValueError, "max_labels must be at least 1"),
        (lambda: complete_labels(conditional(), Digits(), max_labels=2.5), TypeError, "max_labels must be an integer"),
        (lambda: complete_labels(conditional(), Digits(), seed=-1), ValueError, "seed must be at least 0"),
        (lambda: complete_labels(conditional(), Digits(), drop=1.0), ValueError, "less than 1, found 1.0"),
        (
            lambda: complete_labels(conditional(), Digits(missing=0.9, validation=10), drop=0.99),
            ValueError,
            "drop=0.99 leaves no image for val",
        ),
        (lambda: complete_labels(conditional(), Digits(), drop=math.nan), ValueError, "drop must be finite"),
        (lambda: complete_labels(conditional(), Digits(keep=[])), ValueError, "must have attributes, found none"),
        (lambda: complete_labels(conditional([10, 3]), Digits()), ValueError, "has 2 attributes, the data 1"),
    ],
)
def test_errors_name_rule_and_finding(call, error, message):
    with pytest.raises(error, match=message):
        call()
