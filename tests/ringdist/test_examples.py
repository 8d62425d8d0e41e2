"""The examples in docstrings run, and every public function has one."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator

import pytest

import ringdist as rd

MODULES = [module.name for module in pkgutil.walk_packages(rd.__path__, "ringdist.")]
NEEDS_TORCH = {"ringdist.engines.factored", "ringdist.engines.lean"}  # to be imported at all


@pytest.mark.parametrize("name", ["ringdist", *MODULES])
def test_examples_of_a_module_print_what_they_say(name):
    if name in NEEDS_TORCH:
        pytest.importorskip("torch")
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name)):
        if not any("import torch" in example.source for example in test.examples) or importlib.util.find_spec("torch"):
            runner.run(test)
    assert runner.summarize().failed == 0


def public() -> Iterator[tuple[str, Callable]]:
    """The functions and methods that users call, and the functions that a method's docstring refers to."""
    for space in (rd, rd.compare, rd.ordering, rd.distributed):
        for name, value in vars(space).items():
            if not name.startswith("_") and inspect.isfunction(value) and value.__module__.startswith(space.__name__):
                yield f"{space.__name__}.{name}", value
    for kind in (rd.TensorRing, rd.RingMixture):
        for name, method in inspect.getmembers(kind, callable):
            found = re.search(r"see `([\w.]+)\.(\w+)`", method.__doc__ or "")
            if found and not name.startswith("_"):
                yield found[0], getattr(importlib.import_module(found[1]), found[2])
    for name, method in inspect.getmembers(rd.TensorRingDensity, inspect.isroutine):
        if not name.startswith("_") and method.__module__.startswith("ringdist."):
            yield f"ringdist.TensorRingDensity.{name}", method


@pytest.mark.parametrize("function", [pytest.param(function, id=name) for name, function in public()])
def test_public_functions_have_an_example(function):
    assert ">>> " in (function.__doc__ or ""), function.__qualname__
