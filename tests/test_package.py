"""What an import of the package brings along."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_package_imports_neither_litellm_nor_redis() -> None:
    program = "import sys, proxy_plugin; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "proxy_plugin" in loaded
    assert loaded.isdisjoint({"litellm", "redis", "starlette", "pydantic", "prometheus_client", "yaml", "tenacity"})
