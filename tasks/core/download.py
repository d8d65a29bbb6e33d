"""What touches a network, and what goes wrong there in one line: who did not answer, and what to do.

A pinned revision never changes, so what is here is read without a question. Else the host is asked first, once and
briefly: the hub's own libraries would try again for minutes, and then show a traceback.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from logging import CRITICAL
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from tasks.core.types import UsageError

CONNECT_TIMEOUT_SECONDS = 3.0  # seconds that a host has to take a connection, and to answer
READ_TIMEOUT_SECONDS = 10.0
OFFLINE_ADVICE = "use --source sample, or --source local with --data-dir <folder of original files>"
RETRY_ADVICE = "run it again, what has arrived is kept"


def load_hub_dataset(task_name: str, dataset_id: str, config: str | None, revision: str):  # -> datasets.DatasetDict
    """A data set of the hub at its revision, or a folder of the same shape."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub import HfApi
    from huggingface_hub.constants import is_offline_mode

    where = f"{task_name}: data set {dataset_id}"
    if Path(dataset_id).is_dir():
        with translate_errors(where, OFFLINE_ADVICE, error_types=(DatasetsError,)):
            return load_dataset(dataset_id, config)
    if (found := load_cached_dataset(dataset_id, config, revision)) is not None:
        return found
    if is_offline_mode():
        raise UsageError(
            f"{where} is not in the hub's cache, and HF_HUB_OFFLINE is set; fetch it first, or {OFFLINE_ADVICE}"
        )
    with translate_errors(where, OFFLINE_ADVICE, f"{RETRY_ADVICE}, or {OFFLINE_ADVICE}", error_types=(DatasetsError,)):
        HfApi().dataset_info(dataset_id, revision=revision, timeout=make_timeout())
        tables = load_dataset(dataset_id, config, revision=revision)
    found = Path(next(iter(tables.values())).cache_files[0]["filename"]).parent.name
    if found != revision:  # `datasets` takes what it has, of any revision, when the hub fails in the middle
        raise UsageError(
            f"{where}: the hub gave up, and its cache holds {found}, not {revision}; {RETRY_ADVICE}, or {OFFLINE_ADVICE}"
        )
    return tables


def load_cached_dataset(dataset_id: str, config: str | None, revision: str):  # -> datasets.DatasetDict | None
    """The tables that `datasets` made of exactly this revision."""
    from datasets import config as settings
    from datasets.naming import camelcase_to_snakecase
    from datasets.packaged_modules.cache.cache import Cache

    owner, _, short = dataset_id.rpartition("/")
    short = camelcase_to_snakecase(short)
    home = Path(settings.HF_DATASETS_CACHE) / "___".join(filter(None, [owner, short]))
    folders = [path.parent for path in home.glob(f"{config or '*'}/*/{revision}/dataset_info.json")]
    if len(folders) != 1:
        return None
    place = folders[0]
    builder = Cache(
        dataset_name=short, repo_id=dataset_id, config_name=place.parts[-3], version=place.parts[-2], hash=revision
    )
    with suppress(OSError, ValueError):  # damaged: it is fetched again
        return builder.as_dataset()


def fetch_file(task_name: str, url: str, path: Path) -> Path:
    """A file of a pinned commit, fetched once to `path`. What broke off goes on where it stopped."""
    from huggingface_hub.constants import is_offline_mode

    if path.is_file():
        return path
    host = urlsplit(url).hostname
    if is_offline_mode():
        raise UsageError(
            f"{task_name}: {path} is not there, and HF_HUB_OFFLINE is set; fetch it first, or {OFFLINE_ADVICE}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part, mine = (path.with_name(f"{path.name}{end}") for end in (".part", f".{uuid4().hex}.part"))
    with suppress(FileNotFoundError):
        part.rename(mine)  # whoever comes second begins anew, in a file of its own
    try:
        with translate_errors(f"{task_name}: {url}", OFFLINE_ADVICE, f"{RETRY_ADVICE}, or {OFFLINE_ADVICE}", host):
            download_remaining(url, mine)
        mine.replace(path)
    finally:
        with suppress(FileNotFoundError):
            mine.replace(part)
    return path


def download_remaining(url: str, path: Path) -> None:
    """Append what is missing."""
    from huggingface_hub import get_session

    have = path.stat().st_size if path.is_file() else 0
    wanted = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with get_session().stream("GET", url, headers=wanted, timeout=make_timeout()) as answer:
        if answer.status_code != 416:  # else it was whole
            answer.raise_for_status()
            with path.open("ab" if answer.status_code == 206 else "wb") as target:
                for chunk in answer.iter_raw():
                    target.write(chunk)


def make_timeout():  # -> httpx.Timeout
    from huggingface_hub.utils import httpx

    return httpx.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)


@contextmanager
def translate_errors(
    subject: str,
    advice: str,
    retry_advice: str = "",
    host: str | None = None,
    error_types: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """What the libraries raise, and these kinds, as one line with what to do; `again` where another try may help."""
    from huggingface_hub import constants
    from huggingface_hub.utils import httpx

    try:
        with silence_libraries():
            yield
    except (OSError, ValueError, RuntimeError, httpx.HTTPError, *error_types) as error:
        if isinstance(error, UsageError):
            raise
        why, passing = explain_error(error, host or urlsplit(constants.ENDPOINT).netloc)
        raise UsageError(f"{subject}: {why}; {retry_advice if passing and retry_advice else advice}") from error


def explain_error(error: BaseException, host: str) -> tuple[str, bool]:
    """What went wrong, and whether it may pass by itself."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    while isinstance(error, FileNotFoundError) and error.__cause__:  # what it was before it became "not found"
        error = error.__cause__
    known: tuple[tuple[type, str, bool], ...] = (
        (errors.OfflineModeIsEnabled, "it was not fetched before, and HF_HUB_OFFLINE is set", False),
        (errors.RevisionNotFoundError, f"{host} has no such revision", False),
        (errors.GatedRepoError, f"{host} wants its terms accepted, and the token of who did in HF_TOKEN", False),
        (errors.RepositoryNotFoundError, f"{host} has no such repository, or it is private", False),
        (httpx.ProxyError, "the proxy does not let it through", False),
        (httpx.TimeoutException, f"{host} does not answer in time", True),
        (httpx.ConnectError, f"{host} cannot be reached", True),
        (httpx.NetworkError, f"the connection to {host} broke off", True),
        (httpx.RemoteProtocolError, f"the connection to {host} broke off", True),
        (errors.LocalEntryNotFoundError, f"{host} does not give all of its files", True),
    )
    for kind, text, passing in known:
        if isinstance(error, kind):
            return text, passing
    if (answer := getattr(error, "response", None)) is not None:
        return f"{host} answers {answer.status_code}", answer.status_code >= 500 or answer.status_code == 429
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, FileNotFoundError) and "hf://" in lines[0]:
        return f"{host} lacks {lines[0].partition('hf://')[2].partition(chr(39))[0]}", False
    return lines[0][:300], False


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Without the libraries' own words about every try."""
    loud: list[tuple[Callable[[int], None], int]] = []
    for library in ("datasets", "huggingface_hub"):
        if library in sys.modules:
            logging = sys.modules[library].logging
            loud.append((logging.set_verbosity, logging.get_verbosity()))
            logging.set_verbosity(CRITICAL)
    try:
        yield
    finally:
        for put, level in loud:
            put(level)
