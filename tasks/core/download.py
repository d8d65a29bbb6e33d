"""Downloads of data sets and files; network errors become one line with the host and a remedy.

A pinned revision never changes, so cached files are read without network access. Otherwise one request with a short
timeout checks the host first, because the hub libraries retry for minutes and then raise with a long traceback.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from logging import CRITICAL
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

from tasks.core.types import UsageError

if TYPE_CHECKING:
    from datasets import DatasetDict
    from httpx import Timeout

CONNECT_TIMEOUT_SECONDS = 3.0
READ_TIMEOUT_SECONDS = 10.0
OFFLINE_ADVICE = "use --source sample, or --source local with --data-dir <folder of original files>"
RETRY_ADVICE = "run it again; completed downloads are kept"


def load_hub_dataset(task_name: str, dataset_id: str, config: str | None, revision: str) -> "DatasetDict":
    """Load a data set of the hub at a revision, or a local folder of the same structure.

    Raises UsageError if it is neither cached nor can be downloaded.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub import HfApi
    from huggingface_hub.constants import is_offline_mode

    where = f"{task_name}: data set {dataset_id}"
    if Path(dataset_id).is_dir():
        with translate_errors(where, OFFLINE_ADVICE, error_types=(DatasetsError,)):
            return load_dataset(dataset_id, config)
    if (cached := load_cached_dataset(dataset_id, config, revision)) is not None:
        return cached
    if is_offline_mode():
        raise UsageError(
            f"{where} is not in the hub's cache, and HF_HUB_OFFLINE is set; fetch it first, or {OFFLINE_ADVICE}"
        )
    with translate_errors(where, OFFLINE_ADVICE, f"{RETRY_ADVICE}, or {OFFLINE_ADVICE}", error_types=(DatasetsError,)):
        HfApi().dataset_info(dataset_id, revision=revision, timeout=make_timeout())
        tables = load_dataset(dataset_id, config, revision=revision)
    loaded_revision = Path(next(iter(tables.values())).cache_files[0]["filename"]).parent.name
    if loaded_revision != revision:  # `datasets` falls back to any cached revision if the hub fails during the download
        raise UsageError(
            f"{where}: the download failed, and the cache holds revision {loaded_revision}, not {revision}; "
            f"{RETRY_ADVICE}, or {OFFLINE_ADVICE}"
        )
    return tables


def load_cached_dataset(dataset_id: str, config: str | None, revision: str) -> "DatasetDict | None":
    """Load the tables that `datasets` cached for exactly this revision; None if there are none or they are damaged."""
    from datasets import config as settings
    from datasets.naming import camelcase_to_snakecase
    from datasets.packaged_modules.cache.cache import Cache

    owner, _, name = dataset_id.rpartition("/")
    name = camelcase_to_snakecase(name)
    cache_folder = Path(settings.HF_DATASETS_CACHE) / "___".join(filter(None, [owner, name]))
    folders = [path.parent for path in cache_folder.glob(f"{config or '*'}/*/{revision}/dataset_info.json")]
    if len(folders) != 1:
        return None
    config_name, version = folders[0].parts[-3:-1]
    builder = Cache(dataset_name=name, repo_id=dataset_id, config_name=config_name, version=version, hash=revision)
    try:
        return builder.as_dataset()
    except (OSError, ValueError):  # damaged: download it again
        return None


def fetch_file(task_name: str, url: str, path: Path) -> Path:
    """Download a file of a pinned commit to `path`, unless it exists; a partial download is resumed."""
    from huggingface_hub.constants import is_offline_mode

    if path.is_file():
        return path
    host = urlsplit(url).hostname
    if is_offline_mode():
        raise UsageError(
            f"{task_name}: {path} does not exist, and HF_HUB_OFFLINE is set; fetch it first, or {OFFLINE_ADVICE}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(f"{path.name}.part")
    own_path = path.with_name(f"{path.name}.{uuid4().hex}.part")
    with suppress(FileNotFoundError):
        partial_path.rename(own_path)  # continue a partial download; a concurrent process starts its own
    try:
        with translate_errors(f"{task_name}: {url}", OFFLINE_ADVICE, f"{RETRY_ADVICE}, or {OFFLINE_ADVICE}", host):
            download_remaining(url, own_path)
        own_path.replace(path)
    finally:
        with suppress(FileNotFoundError):
            own_path.replace(partial_path)
    return path


def download_remaining(url: str, path: Path) -> None:
    """Download the bytes of a file that are missing after a partial download."""
    from huggingface_hub import get_session

    size = path.stat().st_size if path.is_file() else 0
    headers = {"Accept-Encoding": "identity"}
    if size:
        headers["Range"] = f"bytes={size}-"
    with get_session().stream("GET", url, headers=headers, timeout=make_timeout()) as response:
        if response.status_code != 416:  # range not satisfiable: the file is complete
            response.raise_for_status()
            with path.open("ab" if response.status_code == 206 else "wb") as target:
                for chunk in response.iter_raw():
                    target.write(chunk)


def make_timeout() -> "Timeout":
    """Return the timeouts of a request."""
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
    """Translate errors of the libraries (and `error_types`) to UsageError, one line with the cause and advice.

    `retry_advice` replaces `advice` if the error may be temporary.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import httpx

    try:
        with silence_libraries():
            yield
    except (OSError, ValueError, RuntimeError, httpx.HTTPError, *error_types) as error:
        if isinstance(error, UsageError):
            raise
        cause, is_temporary = explain_error(error, host or urlsplit(constants.ENDPOINT).netloc)
        raise UsageError(f"{subject}: {cause}; {retry_advice if is_temporary and retry_advice else advice}") from error


def explain_error(error: BaseException, host: str) -> tuple[str, bool]:
    """Return (cause of an error in plain words, whether it may be temporary)."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    # The libraries translate network errors to "not found"; the original error is the cause.
    while isinstance(error, FileNotFoundError) and error.__cause__:
        error = error.__cause__
    explanations: tuple[tuple[type, str, bool], ...] = (  # error type, cause, is temporary
        (errors.OfflineModeIsEnabled, "it is not in the cache, and HF_HUB_OFFLINE is set", False),
        (errors.RevisionNotFoundError, f"{host} has no such revision", False),
        (errors.GatedRepoError, f"{host}: gated repository; accept its terms and set HF_TOKEN", False),
        (errors.RepositoryNotFoundError, f"{host} has no such repository, or it is private", False),
        (httpx.ProxyError, "the proxy rejects the request", False),
        (httpx.TimeoutException, f"{host} does not answer in time", True),
        (httpx.ConnectError, f"{host} cannot be reached", True),
        (httpx.NetworkError, f"the connection to {host} broke off", True),
        (httpx.RemoteProtocolError, f"the connection to {host} broke off", True),
        (errors.LocalEntryNotFoundError, f"{host} does not provide all of its files", True),
    )
    for error_type, cause, is_temporary in explanations:
        if isinstance(error, error_type):
            return cause, is_temporary
    if (response := getattr(error, "response", None)) is not None:
        is_temporary = response.status_code >= 500 or response.status_code == 429
        return f"{host} answers {response.status_code}", is_temporary
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, FileNotFoundError) and "hf://" in lines[0]:
        return f"{host} lacks {lines[0].partition('hf://')[2].partition(chr(39))[0]}", False
    return lines[0][:300], False


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Suppress the log messages of the hub libraries, which report every retry."""
    previous_levels: list[tuple[Callable[[int], None], int]] = []
    for library in ("datasets", "huggingface_hub"):
        if library in sys.modules:
            logging = sys.modules[library].logging
            previous_levels.append((logging.set_verbosity, logging.get_verbosity()))
            logging.set_verbosity(CRITICAL)
    try:
        yield
    finally:
        for set_verbosity, level in previous_levels:
            set_verbosity(level)
