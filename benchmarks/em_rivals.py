"""One hidden Markov model, and one train, in our library and in public ones: the same parameters on every side.

Every side imports its library when it is called, and none is needed for the rest of the benchmark.
"""

import itertools
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np
import torch

import ringdist as rd

PEERS = ("hmmlearn", "tensorkrowch", "libcirkit")  # names on the package index
Score = Callable[[], float]  # mean log-likelihood of the rows


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


class Hmm(NamedTuple):
    """Probabilities of a homogeneous hidden Markov model."""

    start: np.ndarray  # (m,)
    transition: np.ndarray  # (m, m)
    emission: np.ndarray  # (m, N)

    @classmethod
    def draw(cls, states: int, categories: int, rng: np.random.Generator) -> "Hmm":
        return cls(
            rng.dirichlet(np.ones(states)),
            rng.dirichlet(np.ones(states), size=states),
            rng.dirichlet(np.ones(categories), size=states),
        )

    def sample(self, rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
        """Categories (rows, columns)."""
        state = rng.choice(len(self.start), rows, p=self.start)
        found = []
        for _ in range(columns):
            found.append(_pick(self.emission[state], rng))
            state = _pick(self.transition[state], rng)
        return np.stack(found, axis=1)

    def train(self, columns: int) -> rd.TensorRing:
        """The same distribution as a CP train; the last column has no transition behind it."""
        cores = [
            rd.CPCore(
                left=self.start[None, :] if k == 0 else None,
                emission=np.ascontiguousarray(self.emission.T),
                right=self.transition if k < columns - 1 else np.ones((len(self.start), 1)),
            )
            for k in range(columns)
        ]
        return rd.TensorRing(cores, [rd.Categorical(self.emission.shape[1])] * columns)


def _pick(shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One index per row, by the row's shares."""
    return (rng.random(len(shares))[:, None] > shares.cumsum(axis=1)[:, :-1]).sum(axis=1)


# --- Baum-Welch from the same start --------------------------------------------------------------------------------


def fit_tied(hmm: Hmm, x: np.ndarray, epochs: int) -> rd.TensorRing:
    """A train that shares its transition and emission over the columns, by EM from these parameters."""
    return rd.fit_em(hmm.train(x.shape[1]), x, max_epochs=epochs, tied=True).ring


def ours(hmm: Hmm, x: np.ndarray, epochs: int) -> Score:
    ring = fit_tied(hmm, x, epochs)
    return lambda: float(np.mean(ring.log_prob(x)))


def hmmlearn(hmm: Hmm, x: np.ndarray, epochs: int) -> Score:
    """The faster of its two implementations, which rescales (as ours does) where the other takes logarithms."""
    from hmmlearn.hmm import CategoricalHMM

    model = CategoricalHMM(
        len(hmm.start), n_iter=epochs, tol=-np.inf, init_params="", params="ste", implementation="scaling"
    )
    model.startprob_, model.transmat_, model.emissionprob_ = (part.copy() for part in hmm)
    model.n_features = hmm.emission.shape[1]
    flat, lengths = x.reshape(-1, 1), [x.shape[1]] * len(x)
    model.fit(flat, lengths)
    return lambda: float(model.score(flat, lengths)) / len(x)


# --- a step of gradient descent -------------------------------------------------------------------------------------

Step = Callable[[], float]  # takes a step of length zero and returns the mean log-likelihood before it


def stepper(parameters: list[torch.Tensor], log_prob: Callable[[], torch.Tensor]) -> Step:
    optimizer = torch.optim.SGD(parameters, lr=0.0)

    def step() -> float:
        optimizer.zero_grad()
        value = log_prob()
        (-value).backward()
        optimizer.step()
        return value.item()

    return step


class Train(NamedTuple):
    """A non-negative train of full cores, (N, m, m') each, whose normaliser is near 1."""

    cores: list[np.ndarray]

    @classmethod
    def draw(cls, columns: int, categories: int, rank: int, rng: np.random.Generator) -> "Train":
        ranks = [1, *[rank] * (columns - 1), 1]
        shapes = [(categories, left, right) for left, right in itertools.pairwise(ranks)]
        return cls([(2 * rng.random(shape) / (categories * shape[2])).astype(np.float32) for shape in shapes])


def our_train(train: Train, x: np.ndarray) -> Step:
    cores = [torch.tensor(core, requires_grad=True) for core in train.cores]
    rows = torch.as_tensor(x, dtype=torch.float32)
    variables = [rd.Categorical(len(core)) for core in train.cores]
    return stepper(cores, lambda: rd.TensorRing(cores, variables, validate=False, copy=False).log_prob(rows).mean())


def tensorkrowch_steps(train: Train, x: np.ndarray) -> dict[str, Step]:
    """A step for each way in which it contracts a train; the normaliser is one more row, of ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own source, when it is compiled
        import tensorkrowch

    first, *inner, last = (torch.tensor(core) for core in train.cores)
    tensors = [first[:, 0, :], *(core.permute(1, 0, 2).contiguous() for core in inner), last[:, :, 0].T.contiguous()]
    categories = len(first)
    rows = torch.nn.functional.one_hot(torch.as_tensor(x), categories).to(torch.float32)
    rows = torch.cat([rows, torch.ones(1, *rows.shape[1:])])
    found = {}
    for inline in (False, True):
        for stack in (False, True):
            model = tensorkrowch.models.MPS(tensors=[tensor.clone() for tensor in tensors], boundary="obc")
            model.auto_stack, model.auto_unbind = stack, not stack
            model.trace(rows, inline_input=inline, inline_mats=inline)

            def log_prob(model: Any = model, inline: bool = inline) -> torch.Tensor:
                masses = model(rows, inline_input=inline, inline_mats=inline).log()
                return masses[:-1].mean() - masses[-1]

            name = f"{'one by one' if inline else 'pairwise'}{', stacked' if stack else ''}"
            found[name] = stepper(list(model.parameters()), log_prob)
    return found


def our_hmm(hmm: Hmm, x: np.ndarray) -> Step:
    """Every column with parameters of its own, as the circuit has them."""
    cores = [
        {name: torch.tensor(factor, dtype=torch.float32) for name, factor in core.arrays().items()}
        for core in hmm.train(x.shape[1]).cores
    ]
    # The sum over the last hidden state is no parameter of the circuit.
    closing = cores[-1].pop("right")
    parameters = [factor.requires_grad_() for core in cores for factor in core.values()]
    rows = torch.as_tensor(x, dtype=torch.float32)
    variables = [rd.Categorical(hmm.emission.shape[1])] * len(cores)

    def log_prob() -> torch.Tensor:
        links = [rd.CPCore(**core) for core in cores[:-1]] + [rd.CPCore(**cores[-1], right=closing)]
        return rd.TensorRing(links, variables, validate=False, copy=False).log_prob(rows).mean()

    return stepper(parameters, log_prob)


def cirkit_step(hmm: Hmm, x: np.ndarray) -> Step:
    """The hidden Markov model as a circuit, folded and optimised by its compiler."""
    from cirkit.pipeline import PipelineContext
    from cirkit.symbolic.circuit import Circuit
    from cirkit.symbolic.initializers import ConstantTensorInitializer
    from cirkit.symbolic.layers import CategoricalLayer, HadamardLayer, SumLayer
    from cirkit.symbolic.parameters import Parameter, TensorParameter
    from cirkit.utils.scope import Scope

    def parameter(values: np.ndarray) -> Any:
        values = values.astype(np.float32)
        return Parameter.from_input(TensorParameter(*values.shape, initializer=ConstantTensorInitializer(values)))

    states, categories = hmm.emission.shape
    layers: list[Any] = []
    inputs: dict[Any, list[Any]] = {}
    behind: Any = None
    for k in reversed(range(x.shape[1])):
        here = CategoricalLayer(Scope([k]), states, num_categories=categories, probs=parameter(hmm.emission))
        layers.append(here)
        if behind is not None:
            both = HadamardLayer(states, 2)
            inputs[both] = [behind, here]
            layers.append(both)
            here = both
        weight = hmm.transition if k else hmm.start[None, :]
        behind = SumLayer(states, len(weight), weight=parameter(weight))
        inputs[behind] = [here]
        layers.append(behind)
    with PipelineContext(backend="torch", semiring="lse-sum", fold=True, optimize=True) as context:
        circuit = context.compile(Circuit(layers, inputs, [behind]))
    rows = torch.as_tensor(x)
    return stepper(list(circuit.parameters()), lambda: circuit(rows).mean())
