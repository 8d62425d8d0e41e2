"""Every model of images and attributes."""

import pytest

from tests.adapters.conditional import MODELS


@pytest.fixture(params=MODELS)
def model(request):
    from tests.adapters.conditional.cases import make

    return make(request.param)
