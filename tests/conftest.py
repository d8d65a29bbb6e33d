"""Tiny random models of every architecture, saved and loaded as real ones are."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import of the hub: a missing file must cost no retries
os.environ.setdefault("OMP_NUM_THREADS", "1")

import logging  # noqa: E402
import warnings  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402

pytest_plugins = ["tests.support.result_fixtures"]

pytest.register_assert_rewrite("methods.conformance")  # so that a failing proof shows its values

from methods import NAMES  # noqa: E402
from methods.conformance.tiny_models import CONFIG_CLASSES, save_random_model  # noqa: E402
from methods.core.backbone import Backbone  # noqa: E402

warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--method", action="append", help="prove only this method: a name or package.module:Class")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "method_name" in metafunc.fixturenames:
        metafunc.parametrize("method_name", metafunc.config.getoption("--method") or NAMES)


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: save_random_model(root / name, name) for name in CONFIG_CLASSES}


@pytest.fixture(scope="session")
def loaded(model_folders: dict[str, Path]) -> dict[str, Backbone]:
    return {name: Backbone.load(str(folder)) for name, folder in model_folders.items()}


@pytest.fixture(params=list(CONFIG_CLASSES))
def backbone(request: pytest.FixtureRequest, loaded: dict[str, Backbone]):
    """A tiny random backbone of each architecture, left as it was found."""
    found = loaded[request.param]
    yield found
    found.detach()


@pytest.fixture
def qwen3(loaded: dict[str, Backbone]):
    """One tiny random backbone, for what does not depend on the architecture."""
    yield loaded["qwen3"]
    loaded["qwen3"].detach()
