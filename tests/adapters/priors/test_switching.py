"""Switching cores: their transitions, their size, and starts from mixtures that EM improves."""

import math

import pytest

torch = pytest.importorskip("torch")

from adapters import TRIP, JointTRIP  # noqa: E402
from adapters.priors.ring_structure import with_hubs  # noqa: E402
from tests.adapters.priors.ring_cases import PRIVATE, SWITCHING, clusters, perturbed  # noqa: E402

nan = math.nan


def parameters(prior):
    return sum(parameter.numel() for parameter in prior.parameters())


def labelled(n: int = 900):
    """Codes around four centres, their label, and one that is independent of the codes, both partly unknown."""
    z, label = clusters(n)
    y = torch.stack([label, torch.arange(n) % 3], 1).float()
    y[::2, 0] = y[::5, 1] = nan
    return z, y


def test_a_transition_stays_or_draws_another_state():
    prior = perturbed(TRIP(4, rank=3, order="given", **SWITCHING))
    stay, leave, enter = (
        dict(zip((name for name, _ in prior._layout), prior.cores, strict=True))[name].exp()
        for name in ("stay", "leave", "enter")
    )
    for k, core in enumerate(prior.ring.cores[:-1]):
        torch.testing.assert_close(core.right, torch.diag(stay[k]) + torch.outer(leave[k], enter[k]))


def test_hundreds_of_states_cost_few_numbers():
    d, m = 16, 300
    switching, full = TRIP(d, rank=m, **SWITCHING), TRIP(d, rank=m, **PRIVATE)
    assert parameters(switching) == 2 * d * m + 3 * (d - 1) * m + 2 * m
    assert parameters(full) == 2 * d * m + (d - 1) * m**2 + 2 * m


@pytest.mark.parametrize("topology", ["train", "ring"])
def test_the_ring_of_hubs_is_the_ring_of_switching_cores(topology):
    """A hub is one more value of each bond, so what EM of the one finds is a value of the other's parameters."""
    z, y = labelled(300)
    prior = JointTRIP(6, [4, 3], rank=5, topology=topology, attribute_places="spread", **SWITCHING).double()
    torch.manual_seed(0)
    prior.reinitialize(z, y, "mixture")
    mixture = JointTRIP(6, [4, 3], rank=5, topology=topology, attribute_places="spread", **PRIVATE).double()
    mixture.reinitialize(z, y, "mixture")
    hubs = with_hubs(mixture.ring, 0.3)
    conformed = prior._structure.conformed(hubs)
    assert [own.keys() for own in conformed] == [own.keys() for own in prior._structure.shapes(hubs.order)]
    prior._write(conformed, mixture.means, mixture.log_stds, hubs.order)
    rows = torch.cat([z, y], 1).double()
    with torch.no_grad():
        # The mixture's transitions are not diagonal, but nearly.
        torch.testing.assert_close(prior.log_prob(z.double(), y), hubs.log_prob(rows), atol=0.05, rtol=0)


@pytest.mark.parametrize("topology", ["train", "ring"])
def test_em_starts_from_the_mixture_and_keeps_the_kind(topology):
    """Two halves whose clusters are independent, which needs a switch between them."""
    z, label = clusters(900)
    z[:, 3:] = z[torch.randperm(900, generator=torch.Generator().manual_seed(3)), 3:]
    y = torch.stack([label, torch.arange(900) % 3], 1).float()
    y[::2, 0] = y[::5, 1] = nan
    prior = JointTRIP(6, [4, 3], None, 8, "given", topology=topology, **SWITCHING)
    found = []
    for method, epochs in (("mixture", 1), ("em", 1), ("em", 20)):
        torch.manual_seed(0)
        prior.reinitialize(z, y, method, max_epochs=epochs)
        found.append(prior.log_prob(z, y).mean().item())
        assert prior.ring.log_normalizer().abs() < 1e-3
    assert found[2] > max(found[:2]) + 0.1, found


def test_the_start_is_a_mixture():
    z, _ = clusters()
    found = []
    for options in (SWITCHING, PRIVATE):
        torch.manual_seed(0)
        prior = TRIP(6, rank=4, **options)
        prior.reinitialize(z, "mixture")
        found.append(prior.log_prob(z))
    assert (found[0] - found[1]).abs().mean() < 0.02


@pytest.mark.parametrize("core", ["cp", "switching"])
def test_a_weight_keeps_the_values_of_an_attribute_apart(core):
    """An attribute of which the codes say little is mixed by clusters of the codes, unless it counts more."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(2, (1500, 1), generator=generator).float()
    z = torch.randn(1500, 8, generator=generator)
    z[:, 0] += 0.8 * y[:, 0]
    drawn, sure = torch.tensor([1.0]), {}
    for weight in (1.0, 8.0):
        torch.manual_seed(0)
        prior = JointTRIP(8, [2], rank=8, core=core, private_components=True, attribute_places="spread")
        prior.reinitialize(z, y, "mixture", attribute_weight=weight)
        table = prior.ring.cores[8].emission.detach()
        sure[weight] = (table / table.sum(0)).amax(0).mean().item()
        moved = prior.sample(4000, drawn, rng=0)[:, 0].mean() - prior.sample(4000, 1 - drawn, rng=0)[:, 0].mean()
        sure[weight, "moved"] = moved.item()
    assert sure[8.0] > sure[1.0] + 0.1
    assert sure[8.0, "moved"] == pytest.approx(0.8, abs=0.15)


def test_unknown_attributes_have_no_weight():
    z, y = labelled()
    values = []
    for weight in (1.0, 5.0):
        torch.manual_seed(0)
        prior = JointTRIP(6, [4, 3], rank=4, **SWITCHING)
        prior.reinitialize(z, torch.full_like(y, nan), "mixture", attribute_weight=weight)
        values.append(prior.log_prob(z))
    assert torch.equal(*values)


@pytest.mark.parametrize("known", [1000, 60])
def test_an_attribute_on_a_scale_of_its_own_leaves_the_latents_as_they_are(known):
    """It has fewer different values than there are states."""
    z, label = clusters(1000, k=10)
    age = 20.0 + 6 * label + torch.arange(1000) % 5
    y = torch.where(torch.arange(1000) < known, age, nan)[:, None]
    prior, alone = JointTRIP(6, ["continuous"], rank=80, **SWITCHING), TRIP(6, rank=80, **SWITCHING)
    prior.reinitialize(z, y, "mixture")
    alone.reinitialize(z, "mixture")
    assert prior.log_prob(z).mean() > alone.log_prob(z).mean() - 0.5
    drawn = prior.sample_attributes(z, rng=0)
    assert (drawn.mean() - age.mean()).abs() < 5


def test_narrow_clusters_stay_narrow():
    centres = 3 * torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    z = centres[torch.arange(2000) % 20] + 0.05 * torch.randn(2000, 8, generator=torch.Generator().manual_seed(1))
    found = []
    for prior, rows in (
        (JointTRIP(8, [4], rank=20, **SWITCHING), (z, torch.full((2000, 1), nan))),
        (TRIP(8, rank=20, **SWITCHING), (z,)),
    ):
        torch.manual_seed(0)
        prior.reinitialize(*rows, method="mixture")
        found.append(prior.log_prob(z).mean().item())
    assert found[0] == pytest.approx(found[1], abs=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TRIP(3, core="switching"), "private_components must be True"),
        (lambda: TRIP(3, rank=[1, 2, 4], **SWITCHING), r"as many hidden states, found ranks \(1, 2, 4\)"),
        (lambda: weighted(-1.0), "attribute_weight must be finite and not negative, found -1.0"),
        (lambda: weighted(math.inf), "attribute_weight must be finite and not negative, found inf"),
        (lambda: weighted(2.0, "em"), "attribute_weight is of method mixture with private components, found 2.0"),
        (
            lambda: JointTRIP(6, ["continuous"], rank=2, **SWITCHING).reinitialize(
                *labelled(50)[:1], torch.zeros(50, 1), "mixture", attribute_weight=2.0
            ),
            "attribute_weight is of known categorical attributes, found 2.0 and none of them",
        ),
    ],
)
def test_errors_name_rule_and_finding(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def weighted(weight, method="mixture"):
    z, y = labelled(50)
    JointTRIP(6, [4, 3], rank=2, **SWITCHING).reinitialize(z, y, method, attribute_weight=weight)
