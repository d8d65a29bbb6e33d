"""A tokenizer that loses nothing (one token per byte), small files with the traps of the real ones, the real ones."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tasks
from tasks.base import Task


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    built = Tokenizer(models.BPE({char: i for i, char in enumerate([*alphabet, "<eos>"])}, []))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=built, eos_token="<eos>")


@pytest.fixture(autouse=True, scope="session")
def samples_in_a_folder_of_the_tests(tmp_path_factory: pytest.TempPathFactory):
    """Samples are written under the test's own folder, not into the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTERBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def local(tmp_path: Path) -> Callable[..., Task]:
    """`local("afqmc", {"train.txt": "..."}, shots=4)`: a task over files with this content."""

    def make(name: str, files: dict[str, str | list | dict], **options) -> Task:
        for path, content in files.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            file.write_bytes(text.encode())
        return tasks.load_task(name)(data_source="local", data_dir=tmp_path, **options)

    return make


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of original files: ADAPTERBENCH_DATA, else shared/data beside the repository."""
    asked = os.environ.get("ADAPTERBENCH_DATA")
    folder = Path(asked) if asked else Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no original files at {folder}; set ADAPTERBENCH_DATA to their folder")
    return folder


@pytest.fixture
def pair_lines() -> Callable[..., str]:
    """`pair_lines(40)`: lines of a sentence-pair file, labels in turn, no two alike."""

    def make(count: int, start: int = 0) -> str:
        return "".join(f"甲{i}号借款\t乙{i}号还款\t{i % 2}\n" for i in range(start, start + count))

    return make
