"""The proxy that all tests share, and a look into its store past the plugin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from proxy_plugin.sessions.embedded import Embedded
from tests.proxy import Proxy


@pytest.fixture
def store(proxy: Proxy) -> Iterator[redis.Redis]:
    """The embedded server that the shared proxy started."""
    there = Embedded(proxy.folder / "store", proxy.store_port).ensure()
    with redis.Redis(host=there.host, port=there.port, password=there.password) as client:
        yield client
