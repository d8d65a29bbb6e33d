"""Command-line parser: commands, options, help texts and examples. Imports no heavy library."""

import argparse
from difflib import get_close_matches
from typing import Any, NoReturn

from benchmark.config.run_limits import parse_duration, parse_size
from tasks.core.types import UsageError

DESCRIPTION = "Compare adapter methods for language models: by task, number of training examples and cost."


EXAMPLES = """examples:
  python -m benchmark run                                   run the profile that fits this machine
  python -m benchmark run --profile demo --methods lora,prompt --tasks chnsent,ocnli --shots 4,16,full --seeds 0,1,2
  python -m benchmark run --source local --data-dir DIR --backbone tiny --set lora.lr=0.01 --set budget.epochs=10
  python -m benchmark plan --profile paper                  cells due, cells cached, and the estimated time
  python -m benchmark run --profile small --budget 4h       start no new cells after four hours; run again to resume
  python -m benchmark retry --failed                        run the failed cells again
  python -m benchmark show lora/chnsent/16/0                show one cell
  python -m benchmark report --wandb                        rewrite page, tables and picture; export to W&B
  python -m benchmark compare lora prompt --profile demo    paired differences by task, significance and cost
  python -m benchmark recommend --family inference --shots 16   recommend a method from the results on this machine
  python -m benchmark doctor                                check this machine and suggest the next steps
  python -m benchmark fetch --profile paper --dry-run       list the required downloads and which are present
  python -m benchmark claims --profile demo                 test the claims of the papers on the results of this grid
  python -m benchmark list methods | describe ocnli         list methods; describe a task
  python -m benchmark list proofs                           conformance checks of each method, with reasons for gaps
  python -m benchmark check mypackage.mine:Mine             run the conformance checks on your own method
  python -m benchmark check mytask.yaml                     check your own task: quoting, duplicates, leaks, labels
  python -m benchmark export lora/chnsent/16/0 out/         write a trained adapter for peft or methods.load_adapter

exit codes: 0 success; 1 a cell (or the W&B export) failed; 2 invalid input or results folder not writable;
3 the time budget is used up and cells remain; 130, 143 interrupted (finished cells are kept)
"""


COMMAND_HELP = {
    "run": "run all cells that are due, then print the leaderboard",
    "plan": "show the cells that are due or cached, their dependencies, and the estimated time and memory",
    "retry": "run only the failed cells, or only the stale cells (--stale)",
    "status": "count the cells that are done, running, failed, stale and planned",
    "show": "show one cell: scores, cost, identity, and the error if it failed",
    "report": "write the HTML page (index.html), leaderboard, Markdown, CSV and picture from the result files",
    "compare": "compare two methods: paired differences by task and overall, cost of each, and a verdict",
    "doctor": "check this machine, show what the profile still needs, and suggest the next steps",
    "fetch": "download and check the backbone and the data, e.g. for machines without a network",
    "recommend": "recommend a method from the stored results, with its ties and the cost of a wrong choice",
    "claims": "test the claims of the papers as paired comparisons on the results of this grid",
    "list": "list tasks, suites, methods, profiles or proofs (conformance checks)",
    "describe": "show what a task's loader reads, truncates and removes, and example prompts",
    "export": "write the trained adapter of a cell to a folder, in peft's format if peft supports the method",
    "check": "run the conformance checks on a method, or the loader checks on a task; both may be your own",
}


class CommandLineParser(argparse.ArgumentParser):
    """Argument parser that reports an error as a one-line `UsageError`."""

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` instead of printing the usage and exiting."""
        raise UsageError(f"{message} (see: {self.prog} --help)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Reject unknown arguments; also for commands, where the set of valid options is known."""
        options, rest = super().parse_known_args(args, namespace)
        if rest and rest[0].startswith("-"):
            valid_options = [text for action in self._actions for text in action.option_strings]
            close = get_close_matches(rest[0].partition("=")[0], valid_options, 1)
            self.error(f"no option {rest[0]}{f'; did you mean {close[0]}?' if close else ''}")
        if rest:
            self.error(
                f"unexpected argument {rest[0]!r}; separate multiple values with commas, e.g. --tasks chnsent,ocnli"
            )
        return options, rest


def parse_comma_separated(text: str) -> list[str]:
    """Split text at commas and strip each value. Raises `ArgumentTypeError` if there is no value."""
    values = [value.strip() for value in text.split(",") if value.strip()]
    if not values:
        raise argparse.ArgumentTypeError("give names or numbers, separated by commas")
    return values


def build_parser() -> CommandLineParser:
    """Build the parser with all commands and their options."""
    top = CommandLineParser(
        "python -m benchmark", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawTextHelpFormatter
    )
    verbs = top.add_subparsers(dest="verb", metavar="COMMAND", parser_class=CommandLineParser)
    subparsers = {
        name: verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        for name, text in COMMAND_HELP.items()
    }
    for name, subparser in subparsers.items():
        if name == "list":
            subparser.add_argument("what", metavar="tasks|suites|methods|profiles|proofs", help="what to list")
            subparser.add_argument(
                "--markdown", action="store_true", help="print the proofs as the text of docs/proofs.md"
            )
        if name == "describe":
            subparser.add_argument("task", help="name of a task, package.module:Class, or a YAML file")
        if name in ("show", "export"):
            subparser.add_argument("cell", help="method/task/shots/seed, or the first characters of an identity")
        if name == "compare":
            subparser.add_argument("first", metavar="A", help="a method, or a variant of one, e.g. lora:rank-2")
            subparser.add_argument("second", metavar="B", help="the method or variant to compare it with")
        if name == "export":
            subparser.add_argument("folder", metavar="DIR", help="a new or empty folder, or one of an earlier export")
        if name == "check":
            subparser.add_argument(
                "what", metavar="NAME", help="name of a method or task, package.module:Class, or a YAML file"
            )
        add_profile_options(subparser)
    for name in ("run", "retry", "report"):
        subparsers[name].add_argument(
            "--wandb",
            choices=("off", "offline", "online"),
            nargs="?",
            const="offline",
            help="export the results to Weights & Biases; offline (the default of a bare --wandb) writes files, "
            "online uploads them",
        )
    add_report_options(subparsers["report"])
    subparsers["status"].add_argument(
        "--watch", action="store_true", help="repeat every two seconds until nothing is due"
    )
    subparsers["doctor"].add_argument("--json", action="store_true", help="print the findings as JSON")
    subparsers["fetch"].add_argument(
        "--dry-run", action="store_true", help="show what is needed and what is present, then stop"
    )
    add_recommend_options(subparsers["recommend"])
    subparsers["retry"].add_argument("--failed", action="store_true", help="run the failed cells (default)")
    subparsers["retry"].add_argument(
        "--stale", action="store_true", help="run the cells whose code, options or data changed"
    )
    for name in ("run", "retry"):
        add_engine_options(subparsers[name])
        add_limit_options(subparsers[name])
    subparsers["run"].add_argument("--dry", action="store_true", help="show the plan, then stop")
    return top


def add_report_options(subparser: argparse.ArgumentParser) -> None:
    """Add the options of `report`."""
    subparser.add_argument("--open", action="store_true", help="open the page in a browser if there is a display")
    subparser.add_argument(
        "--stale", action="store_true", help="include results whose code, options or data changed since"
    )
    subparser.add_argument(
        "--texts",
        action="store_true",
        help="include the texts of test examples in the page (default: only of generated samples)",
    )


def add_recommend_options(subparser: argparse.ArgumentParser) -> None:
    """Add the options of `recommend`."""
    subparser.add_argument(
        "--family", help="recommend for a family of tasks, e.g. inference; use --tasks for single tasks"
    )
    subparser.add_argument(
        "--memory", type=parse_size, metavar="SIZE", help="only methods whose peak memory is at most SIZE, e.g. 8GB"
    )
    subparser.add_argument(
        "--seconds",
        type=parse_duration,
        metavar="TIME",
        help="maximum time per cell, including its source stages, e.g. 90s or 15m",
    )


def add_engine_options(subparser: argparse.ArgumentParser) -> None:
    """Add the options that select the execution backend."""
    subparser.add_argument(
        "--engine",
        choices=("processes", "ray"),
        default="processes",
        help="execution backend (default: processes); ray runs one actor per GPU or CPU core, on this machine or on "
        "a cluster (pip install ray)",
    )
    subparser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="address of the Ray cluster to join, or auto (default: start Ray on this machine)",
    )


def add_limit_options(subparser: argparse.ArgumentParser) -> None:
    """Add the options that limit a run: failures, total time, time per cell."""
    subparser.add_argument(
        "--on-failure",
        choices=("go", "stop"),
        default="go",
        help="go: continue after a failed cell (default); stop: start no new cells after a failure",
    )
    subparser.add_argument(
        "--budget",
        type=parse_duration,
        metavar="TIME",
        help="start no new cells after this wall-clock time (90s, 15m, 4h); exits with code 3 if cells remain",
    )
    subparser.add_argument(
        "--timeout",
        type=parse_duration,
        metavar="TIME",
        help="per-cell time limit (90s, 15m, 4h); a cell that exceeds it is marked failed",
    )


def add_profile_options(subparser: argparse.ArgumentParser) -> None:
    """Add the options that choose a profile and override its fields."""
    group = subparser.add_argument_group("profile and its overrides (default of each: the profile's value)")
    group.add_argument(
        "--profile",
        default="auto",
        metavar="NAME",
        help="name of a profile or a YAML file; auto (default) chooses by this machine's hardware",
    )
    group.add_argument("--suite", metavar="NAME", help="suite of tasks; see `list suites`")
    group.add_argument("--backbone", metavar="NAME", help="tiny (bundled), a local folder, or a hub id")
    group.add_argument("--device", help="auto, cpu, cuda or cuda:1")
    group.add_argument(
        "--source", metavar="SOURCE", help="data source: sample (generated), local (--data-dir) or hub (downloaded)"
    )
    group.add_argument("--data-dir", metavar="DIR", help="folder of the original data files, for --source local")
    for name, text in (
        ("methods", "names of methods, or all"),
        ("tasks", "names of tasks, or all"),
        ("shots", "numbers of training examples per label, or full, e.g. 4,16,full"),
        ("seeds", "random seeds, e.g. 0,1,2"),
    ):
        group.add_argument(f"--{name}", type=parse_comma_separated, metavar="A,B", help=text)
    group.add_argument("--limit-test", type=int, metavar="N", help="score at most N test examples per task")
    group.add_argument(
        "--workers", help="number of worker processes; auto: one per CPU core, or one if the device is a GPU"
    )
    group.add_argument(
        "--pack", metavar="N", help="maximum number of cells of a method that train together; auto; 1: no packing"
    )
    group.add_argument("--results", metavar="DIR", help="results folder (default: results/<profile>)")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=V",
        dest="settings",
        help="override any field: lora.lr=0.01, method.config.rank=4 (all methods), budget.epochs=3",
    )
