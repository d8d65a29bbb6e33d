"""Words, flags, settings and profiles that people get wrong."""

import time
from pathlib import Path

import pytest

from tests.end_to_end.cli_errors.conftest import GRID

WORDS = [
    (["rnu"], "did you mean 'run'"),
    (["zzz"], "there are: run, plan"),
    (["--profile", "smoke"], "COMMAND"),
    (["plan", "--nonsense"], "--nonsense"),
    (["plan", "surplus"], "surplus"),
    (["list"], "required: tasks|suites|methods"),
    (["list", "task"], "did you mean 'tasks'"),
    (["compare", "lora"], "required: B"),
    (["show"], "required: cell"),
    (["export", "lora/chnsent/4/0"], "required: DIR"),
    (["describe", "ocnil"], "did you mean 'ocnli'"),
    (["describe", "nosuch.module:Task"], "nosuch"),
    (["check", "lorra"], "did you mean 'lora'"),
    (["check", "json:loads"], "not a subclass of methods.base.Method"),
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
    (["--methods", "json:loads"], "not a subclass of methods.base.Method"),
    (["--methods", "nosuch:Method"], "nosuch:Method"),
    (["--tasks", "onli"], "did you mean 'ocnli'"),
    (["--tasks", "a/b"], "no task 'a/b'"),
    (["--tasks", "json:loads"], "not a subclass of tasks.base.Task"),
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
    ("lora.warmup=3", "warmup from 0 to 1"),
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
    ("seed_streams=[splits]", "did you mean 'split'"),
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
    ("methods: [lora]\nmethods: [prompt]", "duplicate key"),
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
    start = time.process_time()  # whatever else the machine does
    refused(["plan", "--profile", "mine.yaml"], said, "mine.yaml")
    assert time.process_time() - start < 5
