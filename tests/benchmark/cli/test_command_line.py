"""The command as people call it, in a process of its own where time or exit code matter."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.cli.main import main
from benchmark.cli.parser import COMMAND_HELP
from benchmark.config.profile import Profile

ROOT = Path(__file__).parents[3]


def call(*words: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "benchmark", *words], capture_output=True, text=True, cwd=ROOT, **options
    )


def test_help_answers_within_a_second_with_examples():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = call("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert said.returncode == 0
    assert "examples:" in said.stdout
    assert all(verb in said.stdout for verb in COMMAND_HELP)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1  # whatever else the machine does


@pytest.mark.parametrize("words", [["--help"], ["list", "profiles"], ["run", "--help"], ["claims", "--help"]])
def test_cheap_verbs_import_nothing_heavy(words: list[str]):
    code = (
        "import sys; from benchmark.cli.main import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'lightning', 'transformers', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    call(*words)  # what is found out about methods is remembered from now on
    said = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT, check=True)
    assert said.stdout.splitlines()[-1] == "[]"


BAD = [
    (["rnu"], "did you mean 'run'"),
    (["run", "--profile", "dmeo"], "did you mean 'demo'"),
    (["run", "--profile", "smoke", "--methods", "lorra"], "did you mean 'lora'"),
    (["plan", "--profile", "smoke", "--tasks", "onli"], "did you mean 'ocnli'"),
    (["plan", "--profile", "smoke", "--shots", "some"], "shots 'some'"),
    (["plan", "--profile", "smoke", "--seeds", ","], "separated by commas"),
    (["plan", "--profile", "smoke", "--set", "lora.rnk=3"], "did you mean 'rank'"),
    (["plan", "--profile", "smoke", "--set", "lora"], "name.option=value"),
    (["plan", "--profile", "smoke", "--set", "lora.rank=many"], "takes int"),
    (["plan", "--profile", "smoke", "--source", "local"], "--data-dir"),
    (["plan", "--profile", "smoke", "--backbone", "./none"], "no such folder"),
    (["plan", "--profile", "smoke", "--methods", "no.such.module:Method"], "no.such.module:Method"),
    (["plan", "--nonsense"], "no option --nonsense (see: python -m benchmark plan --help)"),
    (["report", "--metods", "lora"], "no option --metods; did you mean --methods?"),
    (["plan", "--tasks", "chnsent", "ocnli"], "unexpected argument 'ocnli'; separate multiple values with commas"),
    (["list"], "tasks|suites|methods|profiles|proofs"),
    (["list", "task"], "did you mean 'tasks'"),
    (["describe", "ocnil"], "did you mean 'ocnli'"),
    (["show", "lora/chnsent/4/9", "--profile", "smoke"], "lora/chnsent/4/9"),
    (["report", "--profile", "smoke", "--results", "/no/such"], "benchmark run --profile smoke --results /no/such"),
    (["claims", "--profile", "smoke", "--results", "/no/such"], "no results in"),
    (["compare", "lora", "prompt", "--profile", "smoke", "--results", "/no/such"], "no results in"),
    (["compare", "lora", "--profile", "smoke"], "required: B"),
    (["run", "--profile", "smoke", "--limit-test", "0"], "limit"),
    (["run", "--wandb", "maybe"], "maybe"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_input_is_one_line_and_exit_code_2(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out = capsys.readouterr()
    assert said in out.err
    assert len(out.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_results_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    words = ["--profile", "smoke", "--methods", "lora", "--tasks", "ocnli", "--results", str(tmp_path / "file" / "x")]
    assert main(["run", *words]) == 2
    assert "name another with --results" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["tasks", "methods", "profiles"])
def test_lists_name_everything(what: str, capsys):
    import methods
    import tasks
    from benchmark.config import loading

    assert main(["list", what]) == 0
    out = capsys.readouterr().out
    assert all(
        name in out
        for name in {"tasks": tasks.TASK_NAMES, "methods": methods.NAMES, "profiles": loading.list_presets()}[what]
    )


def test_plan_counts_what_is_due_and_says_what_its_estimate_rests_on(small: Profile, capsys):
    words = ["--profile", "smoke", "--methods", "zero_shot,lora", "--tasks", "chnsent", "--seeds", "0,1"]
    words += ["--backbone", small.backbone.name, "--results", str(small.results_folder)]
    assert main(["plan", *words]) == 0
    out = capsys.readouterr().out
    assert "3 cells due, 0 cached" in out
    assert "rough estimate" in out
    assert not small.results_folder.exists()
    assert main(["status", *words]) == 0
    assert "3 planned, 0 running, 0 done" in capsys.readouterr().out


def test_describe_shows_prompts_and_counts(small: Profile, capsys):
    assert main(["describe", "ocnli", "--backbone", small.backbone.name, "--profile", "smoke"]) == 0
    out = capsys.readouterr().out
    assert "licence" in out
    assert "关系：[" in out
