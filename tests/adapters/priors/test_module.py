"""Priors as modules: state, copies, precision, shapes, compilation."""

import copy
import io
import pickle

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("zuko")

from tests.adapters.priors.cases import MAKERS, D, encoder, every_prior, make, nan  # noqa: E402


@every_prior
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_state_dict_round_trips_bit_for_bit(name, dtype, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    source, target = (make(name, seed=s) if "seed" in seeds(name) else make(name) for s in (3, 4))
    encode = copy.deepcopy(encoder()).to(device, getattr(torch, dtype))
    for prior in (source, target):
        prior.to(device, getattr(torch, dtype))
        if name.startswith("vamp"):
            prior._encoder = (encode,)
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        next(target.parameters()).add_(1)
    target.load_state_dict(torch.load(file, weights_only=True))
    for (key, a), b in zip(source.state_dict().items(), target.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    z = source.sample(20, rng=0)
    assert z.dtype == getattr(torch, dtype) and z.device.type == device
    assert torch.equal(source.log_prob(z), target.log_prob(z))
    assert torch.equal(target.sample(20, rng=0), z)


def seeds(name: str) -> list[str]:
    return [] if name in ("gaussian", "flow") else ["seed"]


@every_prior
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_autocast_leaves_the_prior_in_full_precision(name, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    prior = make(name).to(device)
    if name.startswith("vamp"):
        prior._encoder = (copy.deepcopy(encoder()).to(device),)
    z = prior.sample(16, rng=0)
    expected = prior.log_prob(z)
    with torch.autocast(device, dtype=torch.bfloat16):
        assert torch.equal(prior.log_prob(z), expected)
        assert torch.equal(prior.sample(16, rng=0), z)
        assert prior.rsample(4).dtype == torch.float32
        low = prior.log_prob(z.bfloat16())
    assert low.dtype == torch.float32
    assert torch.equal(low, prior.log_prob(z.bfloat16().float()))


@every_prior
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))], ids=["copy", "pickle"])
def test_priors_can_be_copied(name, copied):
    prior = make(name)
    z = prior.sample(5)
    other = copied(prior)
    assert torch.equal(other.log_prob(z), prior.log_prob(z))
    with torch.no_grad():
        list(other.parameters())[-1].view(-1)[0].add_(0.5)  # of one entry: a common factor would change nothing
    assert not torch.equal(other.log_prob(z), prior.log_prob(z))


@every_prior
@pytest.mark.parametrize("trainable", [True, False])
def test_fixed_or_learnable(name, trainable):
    prior = make(name, trainable=trainable)
    own = prior.transform if name == "flow" else prior
    assert {p.requires_grad for p in own.parameters()} == {trainable}
    value = prior.log_prob(prior.sample(4)).sum()
    if trainable:
        value.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in own.parameters())
    elif name not in ("vamp", "vamp trip", "flow"):
        assert not value.requires_grad


@every_prior
def test_shapes(name):
    prior = make(name)
    z = prior.sample(6).reshape(2, 3, D)
    assert prior.log_prob(z).shape == (2, 3)
    assert prior.log_prob(z[0, 0]).shape == ()
    assert prior.sample(0).shape == prior.rsample(0).shape == (0, D)
    if name != "flow":
        assert prior.log_prob(z[:, :0]).shape == (2, 0)
        assert prior.sample_given(z).shape == z.shape
        assert prior.sample_given(z[:0, 0]).shape == (0, D)
    assert prior.log_prob(z.double()).dtype == torch.float32


@every_prior
def test_the_callers_tensors_are_not_written(name):
    prior = make(name)
    z = prior.sample(5)
    if name != "flow":
        z[0, 0] = nan
    before = z.clone()
    prior.log_prob(z)
    if name != "flow":
        prior.sample_given(z)
        assert torch.isnan(z[0, 0])
    assert torch.equal(z.nan_to_num(99), before.nan_to_num(99))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # of Inductor, about itself
# Dynamo looks at the ring's cores where it breaks the graph.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "compiler"), [*((name, "eager") for name in MAKERS if name not in ("train", "exp")), ("trip", "inductor")]
)
def test_log_prob_compiles(name, compiler):
    """Values and gradients, by tracing only and by torch's own compiler; graph breaks are allowed."""
    torch._dynamo.reset()
    prior = make(name, trainable=True)
    z = prior.sample(6, rng=0)
    results = []
    for log_prob in (prior.log_prob, torch.compile(prior.log_prob, backend=compiler)):
        prior.zero_grad()
        value = log_prob(z)
        value.sum().backward()
        results.append([value.detach(), *(p.grad.clone() for p in prior.parameters())])
    for plain, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
