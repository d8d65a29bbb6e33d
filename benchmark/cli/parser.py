"""TODO."""

import argparse
from difflib import get_close_matches

from benchmark.config.run_limits import parse_duration, parse_size
from tasks.core.types import UsageError

DESCRIPTION = "Which adapter method, for which task, at how many examples, at what cost?"


EXAMPLES = """examples:
  python -m benchmark run                                   the profile that fits this machine
  python -m benchmark run --profile demo --methods lora,prompt --tasks chnsent,ocnli --shots 4,16,full --seeds 0,1,2
  python -m benchmark run --source local --data-dir DIR --backbone tiny --set lora.lr=0.01 --set budget.epochs=10
  python -m benchmark plan --profile paper                  cells due, cached, and how long they will take
  python -m benchmark run --profile small --budget 4h       begin no cell after four hours; run again to go on
  python -m benchmark retry --failed                        what failed, once more
  python -m benchmark show lora/chnsent/16/0                everything about one cell
  python -m benchmark report --wandb                        page, tables and picture again, and W&B's view
  python -m benchmark compare lora prompt --profile demo    is the difference real, task by task, and what does it cost
  python -m benchmark recommend --family inference --shots 16   the method to try first, by what was run here
  python -m benchmark doctor                                can it be run here, and what to do next
  python -m benchmark fetch --profile paper --dry-run       what it needs of the hub, and what of it is here
  python -m benchmark claims --profile demo                 what the papers claim, on the grid that was run here
  python -m benchmark list methods | describe ocnli         what there is
  python -m benchmark list proofs                           which proof each method passes, and why a blank is blank
  python -m benchmark check mypackage.mine:Mine             the same proofs on a method of your own
  python -m benchmark check mytask.yaml                     quoting, duplicates, leaks, labels and cuts of your own task
  python -m benchmark export lora/chnsent/16/0 out/         what a cell learned, for peft or methods.load_adapter

exit codes: 0 all cells done, 1 a cell failed (or W&B did), 2 bad input or a folder that takes no more,
3 the run's budget is over and cells are left, 130 and 143 interrupted (finished cells are kept)
"""


COMMAND_HELP = {
    "run": "fill the grid: whatever is due, then the leaderboard",
    "plan": "cells due and cached, how long they will take, and what rests on what",
    "retry": "only the cells that failed, or only the stale ones (--stale)",
    "status": "how many cells are done, running, failed, stale, planned",
    "show": "one cell: scores, cost, identity, and why it failed",
    "report": "the page (index.html), leaderboard, Markdown, CSV and picture from the result files",
    "compare": "two methods: paired differences by task and overall, what each costs, and a verdict",
    "doctor": "what this machine has, what is missing for the profile, and what to do next",
    "fetch": "bring backbone and records here and check them, for machines without a network",
    "recommend": "from the kept results: the method to try first, what is tied with it, and what a wrong choice costs",
    "claims": "the papers' claims as paired comparisons on the grid that was run",
    "list": "tasks, suites, methods, profiles or proofs",
    "describe": "what a task's loader reads, cuts and asks",
    "export": "write what a cell learned to a folder, in peft's format where peft has the method",
    "check": "run the proofs on a method, or the loader checks on a task, your own too",
}


class CommandLineParser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> None:
        raise UsageError(f"{message} (see: {self.prog} --help)")

    def parse_known_args(self, args=None, namespace=None):
        """Of a verb too: there it is known which options there are."""
        options, rest = super().parse_known_args(args, namespace)
        if rest and rest[0].startswith("-"):
            known = [text for action in self._actions for text in action.option_strings]
            close = get_close_matches(rest[0].partition("=")[0], known, 1)
            self.error(f"no option {rest[0]}{f'; did you mean {close[0]}?' if close else ''}")
        if rest:
            self.error(f"{rest[0]!r} is a word too many; values go together with commas, as in --tasks chnsent,ocnli")
        return options, rest


def parse_comma_separated(text: str) -> list[str]:
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found:
        raise argparse.ArgumentTypeError("give names or numbers, separated by commas")
    return found


def build_parser() -> CommandLineParser:
    top = CommandLineParser(
        "python -m benchmark", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawTextHelpFormatter
    )
    verbs = top.add_subparsers(dest="verb", metavar="VERB", parser_class=CommandLineParser)
    made = {
        name: verbs.add_parser(name, help=text, description=text.capitalize() + ".")
        for name, text in COMMAND_HELP.items()
    }
    for name, verb in made.items():
        if name == "list":
            verb.add_argument("what", metavar="tasks|suites|methods|profiles|proofs", help="what to list")
            verb.add_argument("--markdown", action="store_true", help="proofs as the text of docs/proofs.md")
        if name == "describe":
            verb.add_argument("task")
        if name in ("show", "export"):
            verb.add_argument("cell", help="method/task/shots/seed, or the start of an identity")
        if name == "compare":
            verb.add_argument("first", metavar="A", help="a method, or a row of one as lora:rank-2")
            verb.add_argument("second", metavar="B")
        if name == "export":
            verb.add_argument("folder", metavar="DIR", help="new or empty, or of an earlier export")
        if name == "check":
            verb.add_argument("what", metavar="NAME", help="of a method or task, package.module:Class, or a YAML file")
        add_profile_options(verb)
    for name in ("run", "retry", "report"):
        made[name].add_argument("--wandb", choices=("off", "offline", "online"), nargs="?", const="offline",
                                help="view the results in Weights & Biases; online uploads them")  # fmt: skip
    made["report"].add_argument("--open", action="store_true", help="show the page, where there is a display")
    made["report"].add_argument("--stale", action="store_true", help="also results of other code, options or data")
    made["report"].add_argument("--texts", action="store_true",
                                help="test examples in the page too where they are not generated samples")  # fmt: skip
    made["status"].add_argument("--watch", action="store_true", help="again every two seconds, until nothing is due")
    made["doctor"].add_argument("--json", action="store_true", help="the findings as JSON")
    made["fetch"].add_argument("--dry-run", action="store_true", help="show what is needed and what is here, and stop")
    made["recommend"].add_argument("--family", help="for a family of tasks, as inference; --tasks: for single ones")
    made["recommend"].add_argument(
        "--memory", type=parse_size, metavar="SIZE", help="only methods that take at most 8GB"
    )
    made["recommend"].add_argument("--seconds", type=parse_duration, metavar="TIME",
                                   help="and at most so long for a cell with all that it rests on")  # fmt: skip
    made["retry"].add_argument("--failed", action="store_true", help="the cells that failed (this is the default)")
    made["retry"].add_argument("--stale", action="store_true", help="the cells of other code, options or data")
    for name in ("run", "retry"):
        add_engine_options(made[name])
        add_limit_options(made[name])
    made["run"].add_argument("--dry", action="store_true", help="show the plan and stop")
    return top


def add_engine_options(subparser: argparse.ArgumentParser) -> None:
    """Who does the work."""
    subparser.add_argument("--engine", choices=("processes", "ray"), default="processes",
                      help="ray: an actor for each GPU or core, here or on a cluster (pip install ray)")  # fmt: skip
    subparser.add_argument(
        "--address", metavar="HOST:PORT", help="of a Ray cluster to join, or auto; default: Ray here"
    )


def add_limit_options(subparser: argparse.ArgumentParser) -> None:
    """How long the run goes on."""
    subparser.add_argument(
        "--on-failure", choices=("go", "stop"), default="go", help="stop: begin no cell once one failed"
    )
    subparser.add_argument(
        "--budget", type=parse_duration, metavar="TIME", help="begin no cell after 90s, 15m or 4h; exit code 3"
    )
    subparser.add_argument(
        "--timeout", type=parse_duration, metavar="TIME", help="of a cell: one that takes longer has failed"
    )


def add_profile_options(subparser: argparse.ArgumentParser) -> None:
    """Everything a profile says can be said on the command line."""
    group = subparser.add_argument_group("profile and what to change in it")
    group.add_argument("--profile", "--config", default="auto", metavar="NAME",
                       help="name or YAML file; auto (default) looks at this machine")  # fmt: skip
    group.add_argument("--suite", metavar="NAME", help="whose tasks: see `list suites`")
    group.add_argument("--backbone", metavar="NAME", help="tiny, a folder, or a hub id")
    group.add_argument("--device", help="auto, cpu, cuda, cuda:1")
    group.add_argument("--source", metavar="SOURCE", help="sample, local or hub")
    group.add_argument("--data-dir", metavar="DIR", help="folder of original files, for --source local")
    for name in ("methods", "tasks", "shots", "seeds"):
        group.add_argument(
            f"--{name}",
            type=parse_comma_separated,
            metavar="A,B",
            help="all, or names" if name in ("methods", "tasks") else None,
        )
    group.add_argument("--limit-test", type=int, metavar="N", help="score at most N test examples of a task")
    group.add_argument("--workers", help="processes; auto: one per core, on a GPU one")
    group.add_argument("--pack", metavar="N", help="most cells of a method that train together; auto, or 1: each alone")
    group.add_argument("--results", metavar="DIR", help="default: results/<profile>")
    group.add_argument("--set", action="append", default=[], metavar="A.B=V", dest="settings",
                       help="any field: lora.lr=0.01, method.config.rank=4 (all methods), budget.epochs=3")  # fmt: skip
