"""Hypothesis strategies for small rings, and the decorator that runs one test over them on every backend."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.oracle import KINDS, Case, make_case


@st.composite
def cases(draw, kinds=KINDS, min_d=1, max_d=5, max_components=4, max_rank=4) -> Case:
    """Rings of 1 to 5 columns: families, sizes, ranks and order all drawn, cores with or without zeros."""
    d = draw(st.integers(min_d, max_d))
    several = functools.partial(st.lists, min_size=d, max_size=d)
    return make_case(
        kinds=draw(several(st.sampled_from(kinds))),
        shape=draw(several(st.integers(1, max_components))),
        ranks=draw(several(st.integers(1, max_rank))),
        order=draw(st.permutations(range(d))),
        sparsity=draw(st.sampled_from([0.0, 0.3, 0.6])),
        seed=draw(st.integers(0, 2**16)),
    )


def over(*always: Case, examples: float = 1.0, **strategies) -> Callable:
    """Run ``test(backend, …, case=…)`` over drawn cases, and over the cases given by hand.

    The number drawn is the backend's (``Backend.examples``) times ``examples``; one that draws none (JAX) does
    the first case given by hand. Draws are derandomised: the suite checks the same rings on every run.
    """

    def decorate(test: Callable) -> Callable:
        @functools.wraps(test)
        def run(backend, **fixtures):
            # hypothesis identifies a test by its function, hence one inner function per call
            @functools.wraps(test)
            def once(**drawn):
                test(backend=backend, **fixtures, **drawn)

            del once.__wrapped__
            once.__signature__ = inspect.Signature(
                [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in strategies]
            )
            checked = given(**strategies)(once)
            for case in always if backend.examples else always[:1]:
                checked = example(case=case)(checked)
            drawn = round(backend.examples * examples)
            settings(
                max_examples=max(1, drawn),
                phases=[Phase.explicit, Phase.generate, Phase.shrink] if drawn else [Phase.explicit],
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            )(checked)()

        kept = [p for name, p in inspect.signature(test).parameters.items() if name not in strategies]
        del run.__wrapped__
        run.__signature__ = inspect.Signature(kept)
        return run

    return decorate
