"""Runs a page's command as far as is cheap, and says in one line why where it is not run whole.

- A verb of ours: its flags, profile, settings and names are checked as they stand. Then what reads (plan, show, report,
  compare ...) runs in this process on a small kept folder: the same command with one step, few examples, and the
  embedded backbone and records in place of larger ones. `run` plans (`--dry`): the kept folder came from `run` itself.
- `make VERB`: make names what it would do, and what of that is ours is checked like the rest.
- A script of the repository: the flags it is called with must be in its source.
- Programs of others (OUTSIDE) are not run, nor is a block under `<!-- not run: why -->`: of those the flags are checked.
- A name that begins with `your` stands for one of the reader's: there too.
"""

import os
import re
import subprocess
import sys
from argparse import Namespace
from functools import cache
from pathlib import Path

import methods
import tasks
from benchmark.cli.main import main
from benchmark.cli.parser import COMMAND_HELP, build_parser
from benchmark.cli.session import build_validated_profile
from tasks.core.types import UsageError
from tests.docs.blocks import ROOT

# not ours: nothing of the suite can break them
OUTSIDE = {"pip", "pipx", "python3", "source", "export", "git", "ls", "cat", "cp", "mkdir", "tail", "head", "ssh", "scp",
           "rsync", "sbatch", "srun", "salloc", "squeue", "scancel", "qsub", "module", "ray", "nohup", "docker",
           "apptainer", "wandb", "du", "tar", "sleep", "echo", "for", "do", "done", "set", "unset", "wait", "trap"}  # fmt: skip
SMALL = ["--backbone", "tiny", "--source", "sample", "--workers", "1", "--limit-test", "4"]
STEPS = [f"{part}.{field}" for part in ("budget", "source_budget")
         for field in ("max_steps=1", "min_steps=0", "evaluations=0", "patience=0")]  # fmt: skip
SMALL += [word for setting in [*STEPS, "backbone.dtype=float32"] for word in ("--set", setting)]
GRID = {"methods": "lora,prompt", "tasks": "chnsent,ocnli", "shots": "16", "seeds": "0"}
READS = ("show", "report", "compare", "claims", "status", "retry", "export", "recommend")
RUNS = ("plan", "run", "list", "describe", *READS)  # `check` takes ten seconds, and tests of its own run it


class Wrong(AssertionError):
    """A command that does not do what the page says."""


def checked(words: list[str], *, run: bool) -> None:
    """One command, in the current folder."""
    program = Path(words[0]).name
    if program == "make":
        for made in recipe(tuple(words)):
            checked(made, run=run)
    elif program == "adapterbench" or (program.startswith("python") and words[1:3] == ["-m", "benchmark"]):
        ours(words[1:] if program == "adapterbench" else words[3:], run=run)
    elif program == "cd":
        if Path(words[1]).is_dir():
            os.chdir(words[1])
            sys.path.insert(0, os.getcwd())
        elif run:
            raise Wrong(f"no folder {words[1]}")
    elif program.startswith("python") and len(words) > 1:
        script(words[1:])
    elif program not in OUTSIDE:
        raise Wrong(f"{program} is no program that the doc runner knows; add it to OUTSIDE with care")


@cache
def recipe(words: tuple[str, ...]) -> list[list[str]]:
    """The commands of ours that make would run."""
    from tests.docs.blocks import commands

    made = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    if made.returncode:
        raise Wrong(made.stderr.strip())
    lines = re.findall(r"(?m)^.*/bin/python .*$", made.stdout)
    wanted = [line.split("/bin/", 1)[1] for line in lines if "pip" not in line and "-m venv" not in line]
    return [found for line in wanted for found in commands(line)]


def script(words: list[str]) -> None:
    """A module or file of the repository (others' are not looked at): every flag is in its source."""
    module = words[:1] == ["-m"]
    name, flags = (words[1], words[2:]) if module else (words[0], words[1:])
    if module and name.partition(".")[0] not in ("tests", "methods", "tasks", "benchmark"):
        return
    place = ROOT / name.replace(".", "/") if module else ROOT / name
    source = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__main__.py"
    if not source.is_file():
        raise Wrong(f"no {source.relative_to(ROOT)}")
    text = source.read_text(encoding="utf-8")
    for flag in flags:
        if flag.startswith("--") and flag != "--help" and f'"{flag.partition("=")[0]}"' not in text:
            raise Wrong(f"{source.relative_to(ROOT)} has no {flag}")


# -------------------------------------------------------------------- verbs


def ours(words: list[str], *, run: bool) -> None:
    if not words or words == ["--help"]:
        return
    if words[0] not in COMMAND_HELP:
        raise Wrong(f"no verb {words[0]}")
    if "--help" in words:
        return
    options = build_parser().parse_args(words)
    if any(part.startswith("your") for word in words for part in word.split(",")):
        return
    if run and words[0] == "check":
        find(words[1])
    if "settings" in options and (run or "." not in options.profile):
        if options.data_dir:
            Path(options.data_dir).mkdir(parents=True, exist_ok=True)
        build_validated_profile(options)
    if run and words[0] in RUNS:
        quick = small(words, options)
        if words[0] in READS:
            fill(wanted(options), options)
        once(quick, f"exit code {{}} of: benchmark {' '.join(quick)}")


def find(name: str) -> None:
    """A method or a task, by its name or import path."""
    try:
        methods.load_method(name)
    except UsageError:
        tasks.load_task(name)


def small(words: list[str], options: Namespace) -> list[str]:
    """The same command, as small as can be."""
    given = vars(options)
    if options.verb == "list":
        return [*words, *(["--methods", "zero_shot"] if options.what == "proofs" else [])]
    usual = GRID | suite(options)
    grid = [word for name, value in usual.items() if given.get(name) is None for word in (f"--{name}", value)]
    more = ["--dry"] if options.verb == "run" else []
    more += ["--wandb", "off"] if given.get("wandb") else []
    if options.verb == "describe":
        return [*words, *SMALL[:4], "--limit-test", "4"]
    return [*words, *SMALL, *(grid if options.verb not in ("show", "export") else []), *more]


def suite(options: Namespace) -> dict[str, str]:
    """Two of its tasks, where a command is about a suite that is not the usual one."""
    return {"tasks": ",".join(tasks.SUITES[options.suite].targets[:2])} if options.suite else {}


def wanted(options: Namespace) -> dict[str, str]:
    """The part of the grid that a command is about."""
    usual = GRID | suite(options)
    grid = {name: ",".join(getattr(options, name) or [usual[name]]) for name in GRID}
    if options.verb == "compare":
        grid["methods"] = f"{options.first},{options.second}"
    if "cell" in options and options.cell.count("/") == 3:
        grid |= dict(zip(GRID, options.cell.split("/"), strict=True))
    return grid


def fill(grid: dict[str, str], options: Namespace) -> None:
    """Run these cells of a profile."""
    where = ["--profile", build_validated_profile(options).name if "." not in options.profile else options.profile]
    where += ["--results", options.results] if options.results else []
    where += ["--suite", options.suite] if options.suite else []
    cells = [word for name, value in grid.items() for word in (f"--{name}", value)]
    keep = ["--set", "keep_adapters=true", "--wandb", "off"]
    once(["run", *where, *SMALL, *cells, *keep], f"exit code {{}} of the run that {options.verb} needs")


DONE: dict[tuple[str, str], int] = {}


def once(words: list[str], wrong: str) -> None:
    """A verb in this process; the same words again in the same folder would do the same."""
    key = os.getcwd(), repr(build_parser().parse_args(words))
    if key not in DONE:
        DONE[key] = main(words)
    if DONE[key] != 0:
        raise Wrong(wrong.format(DONE[key]))
