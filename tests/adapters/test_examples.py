"""The examples in docstrings run, and every public class and function has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("zuko")

import adapters

MODULES = [module.name for module in pkgutil.walk_packages(adapters.__path__, "adapters.")]
PACKAGES = ["adapters", "adapters.data", "adapters.models"]  # whose `__all__` is public
FUNCTIONS = ["figures", "hopping", "interop", "likelihoods", "metrics", "networks"]  # whose classes and functions are
CLASSES = ["callbacks", "models.attributes", "models.vae"]  # whose classes are


@pytest.mark.parametrize("name", ["adapters", *MODULES])
def test_examples_of_a_module_print_what_they_say(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's, of models outside a trainer
        for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name)):
            runner.run(test)
    assert runner.summarize().failed == 0


def public() -> Iterator[Any]:
    for name in PACKAGES:
        package = importlib.import_module(name)
        yield from (getattr(package, label) for label in package.__all__)
    for name in FUNCTIONS + CLASSES:
        module = importlib.import_module(f"adapters.{name}")
        for label, value in vars(module).items():
            if getattr(value, "__module__", None) != module.__name__ or label.startswith("_"):
                continue
            if inspect.isclass(value) or (name in FUNCTIONS and inspect.isfunction(value)):
                yield value


@pytest.mark.parametrize("name", [f"{value.__module__}:{value.__name__}" for value in public()])
def test_public_names_have_an_example(name):
    module, _, label = name.partition(":")
    assert ">>> " in (getattr(importlib.import_module(module), label).__doc__ or "")
