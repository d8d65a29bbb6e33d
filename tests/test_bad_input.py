"""What people get wrong: one line that says what, where and what to do; exit code 2; nothing is written."""

import json
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.__main__ import entry

GRID = ["--profile", "smoke", "--methods", "lora", "--tasks", "chnsent", "--workers", "1"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In an empty folder, with the cache beside it."""
    monkeypatch.setenv("ADAPTERBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def refused(capsys: pytest.CaptureFixture, elsewhere: Path) -> Callable[..., None]:
    def check(words: list[str], *said: str) -> None:
        before = sorted(elsewhere.rglob("*"))
        assert entry(words) == 2
        out = capsys.readouterr().err
        assert out.startswith("error: ")
        assert len(out.splitlines()) == 1, out
        assert len(out) < 600, "too long to be read"
        for text in said:
            assert text in out
        assert sorted(elsewhere.rglob("*")) == before

    return check


WORDS = [
    (["rnu"], "did you mean 'run'"),
    (["zzz"], "there are: run, plan"),
    (["--profile", "smoke"], "VERB"),
    (["plan", "--nonsense"], "--nonsense"),
    (["plan", "surplus"], "surplus"),
    (["list"], "what"),
    (["list", "task"], "did you mean 'tasks'"),
    (["compare", "lora"], "required: B"),
    (["show"], "required: cell"),
    (["export", "lora/chnsent/4/0"], "required: DIR"),
    (["describe", "ocnil"], "did you mean 'ocnli'"),
    (["describe", "nosuch.module:Task"], "nosuch"),
    (["check", "lorra"], "did you mean 'lora'"),
    (["check", "json:loads"], "no subclass of methods.base.Method"),
    (["check", "nosuch:Method"], "No module named 'nosuch'"),
    (["run", "--wandb", "maybe"], "maybe"),
    (["plan", "--limit-test", "many"], "many"),
    (["plan", "--seeds", ","], "separated by commas"),
    (["plan", "--profile", "dmeo"], "did you mean 'demo'"),
    (["plan", "--profile", "."], "no profile '.'"),
    (["plan", "--profile", "/no/such.yaml"], "no profile"),
    (["show", "lora/chnsent/4/9", *GRID], "lora/chnsent/4/9"),
    (["show", "../../x", *GRID], "cell ../../x is unknown"),
    (["report", *GRID], "no results in"),
    (["compare", "lora", "prompt", *GRID], "no results in"),
    (["recommend", "--family", "inference", *GRID], "no results in"),
    (["recommend", "--memory", "8 parsecs"], "write 800MB or 8GB"),
    (["fetch", "--profile", "dmeo", "--dry-run"], "did you mean 'demo'"),
    (["doctor", "--profile", "dmeo"], "did you mean 'demo'"),
]


@pytest.mark.parametrize(("words", "said"), WORDS, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_words_that_mean_nothing(words, said, refused):
    refused(words, said)


FLAGS = [
    (["--methods", "lorra"], "did you mean 'lora'"),
    (["--methods", "lora,lora"], "named twice"),
    (["--methods", "lora,lora:fast"], "no options of its own"),
    (["--methods", "json:loads"], "no subclass of methods.base.Method"),
    (["--methods", "nosuch:Method"], "nosuch:Method"),
    (["--tasks", "onli"], "did you mean 'ocnli'"),
    (["--tasks", "a/b"], "no task 'a/b'"),
    (["--tasks", "json:loads"], "no subclass of tasks.base.Task"),
    (["--tasks", "nosuch:Task"], "nosuch:Task"),
    (["--shots", "some"], "shots 'some'"),
    (["--shots", "0"], "shots 0"),
    (["--shots", "-4"], "from 1 up"),
    (["--shots", "4,4"], "twice"),
    (["--seeds", "a"], "a whole number"),
    (["--seeds", "1.5"], "a whole number"),
    (["--seeds", "-1"], "0 or more"),
    (["--seeds", "99999999999"], "below 2^31"),
    (["--source", "web"], "one of sample, local, hub"),
    (["--source", "local"], "--data-dir"),
    (["--source", "local", "--data-dir", "none"], "no such folder"),
    (["--workers", "0"], "workers 0"),
    (["--workers", "many"], "workers 'many'"),
    (["--pack", "0"], "pack 0"),
    (["--limit-test", "0"], "limit"),
    (["--backbone", "./none"], "no such folder"),
    (["--backbone", "a/b/c"], "no such folder"),
    (["--device", "abacus"], "no device 'abacus'"),
]


@pytest.mark.parametrize(("words", "said"), FLAGS, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_flags_out_of_range(words, said, refused):
    refused(["plan", *GRID, *words], said)


SETTINGS = [
    ("lora", "name.option=value"),
    ("=3", "name.option=value"),
    ("a.b.c.d=3", "<method>.<option>=value"),
    ("lora.lr=[1", "not YAML"),
    ("lora.lr=!!python/object/apply:os.system [x]", "not YAML"),
    ("lora.rnk=3", "did you mean 'rank'"),
    ("lorra.rank=3", "did you mean 'lora'"),
    ("method.config.rnk=3", "has an option 'rnk'"),
    ("lora.rank=many", "takes int"),
    ("lora.rank=2.5", "takes int"),
    ("lora.rank=0", "rank >= 1"),
    ("lora.lr=.nan", "takes float"),
    ("lora.lr=.inf", "takes float"),
    ("lora.lr=-1", "0 or more"),
    ("lora.warmup=3", "a share from 0 to 1"),
    ("lora.dropout=2", "dropout < 1"),
    ("lora.rslora=2", "takes bool"),
    ("lora.schedule=lin", "linear, cosine, constant"),
    ("lora.sites=q zz", "q k v o gate up down"),
    ("config.lora=3", "config.lora takes fields with names"),
    ("budgets=3", "did you mean 'budget'"),
    ("budget=3", "budget takes fields"),
    ("budget.epoch=3", "did you mean 'epochs'"),
    ("budget.epochs=0", "1 or more"),
    ("budget.epochs=1.5", "a whole number"),
    ("budget.max_steps=true", "a whole number"),
    ("backbone.dtype=float16", "float32, bfloat16, mixed"),
    ("backbone.attention=flash", "sdpa, eager"),
    ("max_length=3", "16 tokens or more"),
    ("normalise=max", "sum, mean"),
    ("keep_adapters=maybe", "true or false"),
    ("vary=[splits]", "did you mean 'split'"),
    ("tasks=[]", "tasks is empty"),
    ("shots=4", "a list"),
    ("limit.tset=3", "train, dev or test"),
    ("sources=[bq, chnsent]", "chnsent can only be a target"),
    ("name=../x", "it names a folder"),
    ("name=", "a text"),
]


@pytest.mark.parametrize(("setting", "said"), SETTINGS)
def test_settings_of_a_wrong_name_type_or_range(setting, said, refused):
    refused(["plan", *GRID, "--set", setting], said)


def test_a_row_is_no_path(refused):
    words = ["--methods", "lora:../../x"]
    Path("mine.yaml").write_text("config: {'lora:../../x': {rank: 2}}\ntasks: [chnsent]")
    refused(["plan", "--profile", "mine.yaml", *words], "letters, digits")


def test_a_method_without_sources_to_learn_from(refused):
    refused(["plan", *GRID, "--methods", "shared_lora", "--set", "sources=[]"], "none is left for chnsent")


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
FILES = [
    ("", "found NoneType"),
    ("[1, 2]", "found list"),
    ("methods: [lora", "not YAML"),
    ("methods: [lora]\nmethods: [prompt]", "comes twice"),
    ("metods: [lora]", "did you mean 'methods'"),
    ("methods: lora", "methods takes a list"),
    ("1: 2", "no field '1'"),
    ("\x00", "not YAML"),
    (b"\xff\xfe\x00", "not UTF-8"),
    ("x: !!python/name:os.system", "not YAML"),
    (BOMB, "without aliases"),
    ("a: &a [*a]", "without aliases"),
    ("[" * 20_000, "nested"),
    ("#" * 300_000, "300,000 bytes"),
]


@pytest.mark.parametrize(("text", "said"), FILES, ids=[said for _, said in FILES])
def test_profiles_that_are_none(text, said, refused):
    Path("mine.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    start = time.perf_counter()
    refused(["plan", "--profile", "mine.yaml"], said, "mine.yaml")
    assert time.perf_counter() - start < 5


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
    (lambda f: tear(f, "model.safetensors"), "torn"),
    (lambda f: put(f, "model.safetensors", "oops"), "no safetensors file"),
    (lambda f: put(f, "model.safetensors.index.json", '{"weight_map": {"a": "b.safetensors"}}'), "no b.safetensors"),
    (lambda f: tear(f, "tokenizer.json"), "tokenizer.json cannot be read"),
    (lambda f: put(f, "tokenizer_config.json", "{}"), "no eos_token"),
    (shift_ids, "the tokenizer is another model's"),
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
    monkeypatch.setattr("benchmark.hardware.gpus", tuple)
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
    ("bq", {"train.csv": "sentence1,sentence2,label\n甲,乙\n", "test.csv": ""}, "bq/train.csv:2: not as many columns"),
    (
        "bq",
        {"train.csv": "a,b,label\n甲,乙,0\n", "test.csv": ""},
        "bq/train.csv:2: no field 'sentence1'; there are: a, b",
    ),
    ("ocnli", {"train.json": "{}\n{", "dev.json": ""}, "ocnli/train.json:1: no field 'label'"),
    ("ocnli", {"train.json": '{"label": "-"}\n{', "dev.json": ""}, "ocnli/train.json:2: not JSON"),
    ("ocnli", {"train.json": "[1]", "dev.json": ""}, "ocnli/train.json:1: not a record"),
    ("cote_bd", {"train.txt": '{"s": 5, "ot": "甲"}', "test.txt": ""}, "cote_bd/train.txt:1: not a record"),
    ("drcd", {"DRCD_training.json": "[" * 99_999, "DRCD_test.json": ""}, "drcd/DRCD_training.json"),
    ("drcd", {"DRCD_training.json": "5", "DRCD_test.json": ""}, "DRCD_training.json: not nested as SQuAD"),
    ("drcd", {"DRCD_training.json": squad(), "DRCD_test.json": ""}, "DRCD_training.json: no field 'answers'"),
    ("c3", {"c3-m-train.json": "[[1, 2]]", "c3-d-train.json": "[]"}, "c3-m-train.json: not nested as C3"),
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
    start = time.perf_counter()
    words = ["--backbone", str(model_folders["qwen3"]), "--source", "hub"]
    refused(["run", *GRID, *words], "cannot be reached", "--source sample", "--source local")
    assert time.perf_counter() - start < 5


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
    (cells / "x.json").write_text('{"schema": 1, "predictions": {"file": "../../../etc/passwd"}}')
    refused(["status", *GRID, "--backbone", str(model_folders["qwen3"])], "outside of its folder")
