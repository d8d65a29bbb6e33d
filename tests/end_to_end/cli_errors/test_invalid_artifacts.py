"""Backbones, records and results that are not what they should be."""

import json
import shutil
import socket
import time
from pathlib import Path

import pytest

from tests.end_to_end.cli_errors.conftest import GRID

# -------------------------------------------------------------------- backbone


def lose(folder: Path, name: str) -> None:
    (folder / name).unlink()


def put(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)


def tear(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])


def shift_ids(folder: Path) -> None:
    """A tokenizer of a larger vocabulary."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"] = {word: 1000 + i for word, i in tokenizer["model"]["vocab"].items()}
    path.write_text(json.dumps(tokenizer))


def one_word(folder: Path) -> None:
    """A tokenizer that knows no Chinese: every word is <unk>."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"] = {"type": "WordLevel", "vocab": {"<unk>": 0, "<eos>": 1}, "unk_token": "<unk>"}
    tokenizer["pre_tokenizer"] = {"type": "Whitespace"}
    path.write_text(json.dumps(tokenizer))


BACKBONES = [
    (lambda f: lose(f, "model.safetensors"), "no *.safetensors"),
    (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "no *.safetensors"),
    (lambda f: lose(f, "config.json"), "no config.json"),
    (lambda f: put(f, "config.json", "{"), "config.json cannot be read"),
    (lambda f: put(f, "config.json", '{"model_type": "gpt2"}'), "no model type 'gpt2'"),
    (lambda f: tear(f, "model.safetensors"), "truncated"),
    (lambda f: put(f, "model.safetensors", "oops"), "no safetensors file"),
    (lambda f: put(f, "model.safetensors.index.json", '{"weight_map": {"a": "b.safetensors"}}'), "no b.safetensors"),
    (lambda f: tear(f, "tokenizer.json"), "tokenizer.json cannot be read"),
    (lambda f: put(f, "tokenizer_config.json", "{}"), "no eos_token"),
    (shift_ids, "the tokenizer belongs to another model"),
    (one_word, "label words '负面' and '正面' have the same tokens"),
]


@pytest.mark.parametrize(("spoil", "said"), BACKBONES, ids=[said for _, said in BACKBONES])
def test_backbones_that_cannot_be_used(spoil, said, refused, model_folders, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model_folders["qwen3"], folder)
    spoil(folder)
    refused(["run", *GRID, "--backbone", str(folder)], said)


def test_an_instruction_that_has_no_room(refused, model_folders):
    words = ["--backbone", str(model_folders["qwen3"]), "--set", "max_length=16"]
    refused(["run", *GRID, *words], "chnsent: max_length 16 is too short")


def test_a_gpu_that_is_not_there(refused, monkeypatch):
    monkeypatch.setattr("benchmark.system.hardware.get_gpu_memory_mib", tuple)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    refused(["run", *GRID, "--device", "cuda:3"], "no device 'cuda:3'")


# -------------------------------------------------------------------- records


def rows(count: int, start: int = 0) -> str:
    return "".join(f"甲{i}号借款\t乙{i}号还款\t{i % 2}\n" for i in range(start, start + count))


def squad(**more: object) -> str:
    return json.dumps({"data": [{"paragraphs": [{"context": "甲", "qas": [{"question": "谁", **more}]}]}]})


PAIRS = {"train.txt": rows(60), "dev.txt": rows(20, start=100)}
RECORDS = [
    ("afqmc", {}, "no records in"),
    ("afqmc", {"train.txt": ""}, "afqmc/train.txt: no records in it"),
    ("afqmc", {"dev.txt": "\n\n"}, "afqmc/dev.txt: no records in it"),
    ("afqmc", {"train.txt": rows(9) + "甲\t乙\n"}, "afqmc/train.txt:10: 2 columns"),
    ("afqmc", {"train.txt": rows(9) + "甲\t乙\t7\n"}, "afqmc/train.txt:10: label '7' is unknown"),
    ("afqmc", {"train.txt": rows(3).encode() + b"\x89PNG\xff\x00"}, "afqmc/train.txt:4: not UTF-8"),
    ("afqmc", {"train.txt": rows(3).encode("gbk")}, "afqmc/train.txt:1: not UTF-8"),
    ("afqmc", {"train.txt": "甲\t乙\t0\n甲\t乙\t1\n"}, "no train examples left"),
    ("afqmc", {"train.txt": rows(2)}, "4 shots, and no label has more than 1 training"),
    (
        "bq",
        {"train.csv": "sentence1,sentence2,label\n甲,乙\n", "test.csv": ""},
        "bq/train.csv:2: number of columns differs",
    ),
    (
        "bq",
        {"train.csv": "a,b,label\n甲,乙,0\n", "test.csv": ""},
        "bq/train.csv:2: no field 'sentence1'; there are: a, b",
    ),
    ("ocnli", {"train.json": "{}\n{", "dev.json": ""}, "ocnli/train.json:1: no field 'label'"),
    ("ocnli", {"train.json": '{"label": "-"}\n{', "dev.json": ""}, "ocnli/train.json:2: not JSON"),
    ("ocnli", {"train.json": "[1]", "dev.json": ""}, "ocnli/train.json:1: not a JSON object"),
    ("cote_bd", {"train.txt": '{"s": 5, "ot": "甲"}', "test.txt": ""}, "cote_bd/train.txt:1: not a record"),
    ("drcd", {"DRCD_training.json": "[" * 99_999, "DRCD_test.json": ""}, "drcd/DRCD_training.json"),
    ("drcd", {"DRCD_training.json": "5", "DRCD_test.json": ""}, "DRCD_training.json: not in the format of SQuAD"),
    ("drcd", {"DRCD_training.json": squad(), "DRCD_test.json": ""}, "DRCD_training.json: no field 'answers'"),
    ("c3", {"c3-m-train.json": "[[1, 2]]", "c3-d-train.json": "[]"}, "c3-m-train.json: not in the format of C3"),
]


@pytest.mark.parametrize(("task", "changed", "said"), RECORDS, ids=[said for *_, said in RECORDS])
def test_records_that_cannot_be_read(task, changed, said, refused, model_folders, tmp_path):
    folder = tmp_path / "data" / task
    folder.mkdir(parents=True)
    for name, text in (PAIRS | changed if task == "afqmc" and changed else changed).items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    words = ["--backbone", str(model_folders["qwen3"]), "--source", "local", "--data-dir", str(folder.parent)]
    refused(["run", *GRID, *words, "--tasks", task], said)


def test_a_hub_that_cannot_be_reached(refused, model_folders, monkeypatch):
    def refuse(*args, **options):
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    words = ["--backbone", str(model_folders["qwen3"]), "--source", "hub"]
    refused(["run", *GRID, *words], "cannot be reached", "--source sample", "--source local")
    assert sum(slept) < 5


def test_a_backbone_that_was_never_fetched(refused):
    refused(["run", *GRID, "--backbone", "nobody/nothing"], "fetch it with a network first")


# -------------------------------------------------------------------- results


def test_a_results_folder_that_is_a_file(refused, model_folders):
    Path("results").write_text("")
    words = ["--backbone", str(model_folders["qwen3"]), "--results", "results/x"]
    refused(["run", *GRID, *words], "name another with --results")


def test_results_of_another_schema(refused, model_folders):
    cells = Path("results/smoke/cells")
    cells.mkdir(parents=True)
    (cells / "lora-chnsent-4-0.json").write_text('{"schema": 99}')
    refused(["run", *GRID, "--backbone", str(model_folders["qwen3"])], "schema 99", "--results")


def test_results_that_point_out_of_their_folder(refused, model_folders):
    cells = Path("results/smoke/cells")
    cells.mkdir(parents=True)
    (cells / "x.json").write_text('{"schema": 2, "predictions": {"path": "../../../etc/passwd"}}')
    refused(["status", *GRID, "--backbone", str(model_folders["qwen3"])], "outside of its folder")
