"""The backends that `fit_em` runs on."""

import pytest

from tests.backends import load_backend


@pytest.fixture(params=["numpy", "torch", "torch-cuda"])
def backend(request):
    return load_backend(request.param)
