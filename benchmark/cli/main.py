"""Entry point of `python -m benchmark`: runs one command and turns errors and signals into exit codes."""

import os
import signal
import sys
from collections.abc import Sequence

from benchmark.cli.parser import COMMAND_HELP, build_parser
from benchmark.system.redaction import redact_private_text
from benchmark.system.shutdown import REQUESTED_EXIT_CODES
from tasks.core.types import UsageError

INTERRUPTED_MESSAGE = "interrupted; finished cells are kept, run again to resume"


def handle_sigterm(*_: object) -> None:
    """Record exit code 143 and exit."""
    REQUESTED_EXIT_CODES.append(143)
    sys.exit(143)


def handle_sigint(*_: object) -> None:
    """Record exit code 130 and raise `KeyboardInterrupt`."""
    REQUESTED_EXIT_CODES.append(130)
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. `arguments` defaults to `sys.argv[1:]`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    REQUESTED_EXIT_CODES.clear()
    signal.signal(signal.SIGTERM, handle_sigterm)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handle_sigint)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "" not in sys.path and not sys.flags.safe_path:
        # append the working directory last, so local modules are importable but cannot shadow installed packages
        sys.path.append("")
    try:
        if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMAND_HELP:
            from tasks.core.suggestions import suggest_name

            raise UsageError(f"no command {arguments[0]!r}; {suggest_name(arguments[0], COMMAND_HELP)}")
        parser = build_parser()
        options = parser.parse_args(arguments)
        if options.verb is None:
            parser.print_help()
            return 0
        from benchmark.cli import commands

        return commands.COMMAND_HANDLERS[options.verb](options)
    except UsageError as error:
        print(f"error: {redact_private_text(str(error), redact_folders=False)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(INTERRUPTED_MESSAGE, file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader closed the pipe, e.g. `| head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (open until the process exits)
        return 0
    except BaseException:
        if REQUESTED_EXIT_CODES:  # a signal handler ran, but a C library being imported replaced its exception
            print(INTERRUPTED_MESSAGE, file=sys.stderr)
            return REQUESTED_EXIT_CODES[0]
        raise
