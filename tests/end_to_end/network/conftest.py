"""A stand-in for the hub with the suite's data sets, in good health or about to fall ill."""

from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pytest

import methods
import tasks
from tests.support import hub_copies
from tests.support.hub_server import Hub, point, serving

TABLES, FILES = "ocnli", "cote_bd"  # a task of each way: tables of the hub, raw files of a code host
TINY = Path(methods.__file__).parent / "tiny"


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    hub_copies.write(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def full(originals: Path) -> Iterator[Hub]:
    """A hub with all tasks, in good health."""
    with serving() as found:
        hub_copies.put(found, originals)
        yield found


@pytest.fixture
def hub(originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of two tasks that may fall ill; no cache; nobody sleeps between two tries."""
    with serving() as found:
        hub_copies.put(found, originals, TABLES, FILES)
        point(monkeypatch, found, tmp_path)
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
        yield found


def rows(name: str, part: str = "train") -> list[dict]:
    origin = tasks.load_task(name)(data_source="hub").record_source
    return list(origin.iter_records(origin.find_parts()[part]))


def model() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in TINY.iterdir() if path.suffix in (".json", ".safetensors")}


def gone(hub: Hub) -> None:
    hub.repositories.clear()
    hub.heads.clear()


def renumbered(hub: Hub) -> None:
    """All that is there is another revision."""
    for kind, name, revision in list(hub.repositories):
        hub.put(kind, name, hub.repositories.pop((kind, name, revision)), revision="e" * 40)


def ill(pattern: str, **what: float) -> Callable[[Hub], None]:
    return lambda hub: hub.trouble(pattern, **what)
