"""Graphs and compiled training steps against eager ones, and how often a step waits for the device."""

import copy
import functools
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch

from . import rings
from .checks import TOLERANCES, Row, row
from .rings import Case, distance, leaves
from .samplers import ALLOWED, unlikeliness
from .session import Item, Session

TRIES = 2  # captures of one kind that may raise
WARM_UP = 3  # calls before a capture, in which libraries make their handles and memory
STEPS = 4  # replayed or compiled training steps
LATENTS, COMPONENTS, RANK = 16, 6, 8


def items(session: Session) -> Iterable[Item]:
    """Captures; none on a CPU."""
    options = session.options
    if options.device != "cuda":
        return
    for kind, measure in (("log_prob", log_prob), ("training step", steps), ("sample", samples)):
        for name in rings.names(options.small):
            if failures(session, f"captured {kind}") < TRIES:
                case = rings.case(name, options.small)
                yield Item(f"captured {kind}, {name}", functools.partial(measure, case, options.device))
    yield Item("captured training step, prior", functools.partial(by_likelihood, options.device))
    for estimator in ("hybrid", "reinforce", "pathwise"):
        yield Item(f"captured step by rewards, {estimator}", functools.partial(by_rewards, options.device, estimator))
    yield Item("waits for the device", functools.partial(waits, options.device))


def compilations(session: Session) -> Iterable[Item]:
    """What takes the compiler long comes last."""
    yield Item("compiled training step", functools.partial(compiled, session.options.device), 60.0)


def failures(session: Session, kind: str) -> int:
    """How many captures of a kind have raised: each may cost a new process, and one like another tells nothing new."""
    found = session.results["parts"].get("correctness", {})
    records = [r for name, r in found.items() if name.startswith(kind) and r["call"] == session.options.call]
    rows = [row for record in records for row in record.get("value") or []]
    return sum(record["status"] == "failed" for record in records) + sum(row["error"] is None for row in rows)


# -------------------------------------------------------------------------------------------------------------- capture


def capture(operation: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """The operation as a graph: what replays it, and its result, which every replay writes anew."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            operation()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = operation()
    return graph.replay, result


def training_step(log_prob: Callable[[], torch.Tensor], parameters: Any) -> Callable[[], torch.Tensor]:
    """One step of Adam that a graph can hold; its loss."""
    on_device = parameters[0].is_cuda
    optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=True, capturable=on_device)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = -log_prob().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def log_prob(case: Case, device: str) -> list[Row]:
    """Of other rows than those captured."""
    expected, there = case.on("cpu", torch.float64), case.on(device, torch.float32)

    def error() -> float:
        x = there.x.clone()
        replay, value = capture(lambda: there.ring.log_prob(x))
        x.copy_(there.x.flip(0))
        replay()
        return distance(value, expected.ring.log_prob(expected.x.flip(0)))

    return [row("captured log_prob", "float32", error, TOLERANCES["float32"])]


def steps(case: Case, device: str) -> list[Row]:
    """Replayed training steps against eager ones."""
    there = case.on(device, torch.float32)

    def error() -> float:
        (ring, parameters), (other, others) = leaves(there.ring), leaves(there.ring)
        replay, _ = capture(training_step(lambda: ring.log_prob(there.x), parameters))
        eager = training_step(lambda: other.log_prob(there.x), others)
        return after_steps(replay, eager, parameters, others)

    return [row("captured training step", "float32", error, 1e-3)]


def after_steps(replay: Callable[[], None], eager: Callable[[], object], replayed: Any, others: Any) -> float:
    """How far parameters are apart after as many steps of both kinds."""
    for _ in range(STEPS):
        replay()
    for _ in range(WARM_UP + STEPS):
        eager()
    return distance(list(replayed), list(others))


def samples(case: Case, device: str) -> list[Row]:
    """Every replay draws anew, from the ring's distribution."""
    exact, ring = case.on("cpu", torch.float64).ring, case.on(device, torch.float32).ring

    def error() -> float:
        replay, x = capture(lambda: ring.sample(2000))
        replay()
        first = x.clone()
        replay()
        return float("inf") if torch.equal(first, x) else unlikeliness(exact, x)

    return [row("captured sample", "float32", error, ALLOWED)]


def by_likelihood(device: str) -> list[Row]:
    """Training steps of a prior on codes."""

    def error() -> float:
        first, second, z = prior(device), prior(device), codes(device)
        replay, _ = capture(training_step(lambda: first.log_prob(z), list(first.parameters())))
        eager = training_step(lambda: second.log_prob(z), list(second.parameters()))
        return after_steps(replay, eager, first.parameters(), second.parameters())

    return [row("captured training step", "float32", error, 1e-3)]


def by_rewards(device: str, estimator: Any) -> list[Row]:
    """Training steps of a prior on rewards of its samples: all parameters move, none of them far."""
    from adapters import expected_reward

    def error() -> float:
        model = prior(device)
        before = copy.deepcopy(model)

        def reward() -> torch.Tensor:
            return -expected_reward(model, lambda z: -z.square().sum(1), 64, estimator)

        replay, _ = capture(training_step(reward, list(model.parameters())))
        for _ in range(STEPS):
            replay()
        pairs = zip(model.parameters(), before.parameters(), strict=True)
        moved = [distance(new, old) for new, old in pairs]
        return 0.0 if 0 < min(moved) <= max(moved) < 0.1 else float("inf")

    return [row("captured steps by rewards", "float32", error, 0.0)]


# ------------------------------------------------------------------------------------------------------------- compiled


def prior(device: str) -> Any:
    from adapters import TRIP

    return TRIP(LATENTS, COMPONENTS, RANK, seed=3, mean_range=(-2.0, 2.0)).to(device)


def codes(device: str) -> torch.Tensor:
    return torch.randn(64, LATENTS, generator=torch.Generator().manual_seed(1)).to(device)


def compiled(device: str) -> list[Row]:
    """A prior's training steps as PyTorch compiles them, into replayed graphs on CUDA."""

    def error() -> float:
        torch._dynamo.reset()
        first, second, z = prior(device), prior(device), codes(device)
        options: Any = {"mode": "reduce-overhead"} if device == "cuda" else {"backend": "eager"}
        fast = torch.compile(lambda: first.log_prob(z), fullgraph=True, **options)
        steps = [
            training_step(fast, list(first.parameters())),
            training_step(lambda: second.log_prob(z), list(second.parameters())),
        ]
        for _ in range(STEPS):
            if device == "cuda":
                torch.compiler.cudagraph_mark_step_begin()
            for step in steps:
                step()
        return distance(list(first.parameters()), list(second.parameters()))

    found = [row("compiled steps", "float32", error, 1e-3)]
    if device == "cuda" and found[0]["ok"] == "yes":
        model, z = prior(device), codes(device)
        fast = torch.compile(lambda: model.log_prob(z), fullgraph=True)
        found.append(waited("compiled training step", training_step(fast, list(model.parameters()))))
    return found


# ---------------------------------------------------------------------------------------------------------------- waits


def waits(device: str) -> list[Row]:
    """How often the host waits for the device in a step that has been made before."""
    from adapters import expected_reward

    case = rings.case("uniform ring", True).on(device, torch.float32)
    ring, parameters = leaves(case.ring)
    model, z = prior(device), codes(device)
    learned = list(model.parameters())
    operations: dict[str, Callable[[], object]] = {
        "training step of a ring": training_step(lambda: ring.log_prob(case.x), parameters),
        "training step of a prior": training_step(lambda: model.log_prob(z), learned),
        "samples of a ring": lambda: ring.detach().sample(64),
        "samples of a prior": lambda: model.sample(64),
        **{
            f"step by rewards, {e}": training_step(
                functools.partial(expected_reward, model, lambda z: -z.square().sum(1), 64, e), learned
            )
            for e in ("hybrid", "reinforce", "pathwise")
        },
    }
    return [waited(name, operation) for name, operation in operations.items()]


def waited(name: str, operation: Callable[[], object]) -> Row:
    """The number of waits in one call, and the lines of code that wait."""
    found: Row = {"check": name, "dtype": "float32", "error": None, "allowed": 0}
    try:
        operation()
        operation()
        torch.cuda.synchronize()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            operation()
            torch.cuda.set_sync_debug_mode("default")
    except Exception as problem:  # whatever it is, the other operations have their turn
        torch.cuda.set_sync_debug_mode("default")
        return {
            "check": name,
            "dtype": "float32",
            "error": None,
            "allowed": 0,
            "ok": "no",
            "message": str(problem)[:300],
        }
    places = [f"{w.filename.rpartition('/')[2]}:{w.lineno}" for w in seen if "synchronizing" in str(w.message)]
    return found | {"error": len(places), "ok": "no" if places else "yes", "message": ", ".join(places[:12])}
