"""Each test sees only its own requests at the provider."""

from __future__ import annotations

import pytest

from tests.fake_provider import FakeProvider


@pytest.fixture(autouse=True)
def forget(provider: FakeProvider) -> None:
    provider.requests.clear()
