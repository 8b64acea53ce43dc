"""The wheel in an environment that has LiteLLM and never saw the repository."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_provider import FakeProvider
from tests.proxy import Proxy
from tests.ship.packages import ROOT, Built, borrowing, build, install, run, serves

PACKAGE = ROOT / "proxy_plugin"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def python(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    interpreter = borrowing(tmp_path_factory.mktemp("environment"))
    install(interpreter, built.wheel)
    yield interpreter


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    names = set(zipfile.ZipFile(built.wheel).namelist())
    kept = (".py", ".lua", "py.typed")
    files = {str(file.relative_to(ROOT)) for file in PACKAGE.rglob("*") if file.name.endswith(kept)}
    assert {name for name in names if ".dist-info/" not in name} == files
    assert any(name.endswith(".lua") for name in names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_sdist_holds_what_it_takes_to_test_and_deploy_it(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "Makefile", "config/plugin.yaml", "tests/conftest.py"} <= names
    assert not any(part in name for name in names for part in ("node_modules", ".venv", "__pycache__", ".clients"))


def test_a_proxy_with_an_existing_config_runs_on_it(python: Path, tmp_path: Path) -> None:
    environ = {"PYTHONPATH": "", "HOME": str(tmp_path)}
    where = run(python, "-c", "import proxy_plugin; print(proxy_plugin.__file__)", environ=environ, cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(python.parents[1])
    with FakeProvider() as provider:
        proxy = Proxy(tmp_path, {"gpt": provider.base_url}, environ=environ, litellm_settings={"drop_params": True})
        proxy.python = str(python)
        with proxy:
            session = serves(proxy)
            said = run(python.parent / "proxy-plugin", "sessions", "list", "--json", environ=proxy.environ)
            assert session in said
