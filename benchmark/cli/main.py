"""TODO."""

import os
import signal
import sys
from collections.abc import Sequence

from benchmark.cli.parser import COMMAND_HELP, build_parser
from benchmark.system.redaction import redact_private_text
from benchmark.system.shutdown import REQUESTED_EXIT_CODES
from tasks.core.types import UsageError

INTERRUPTED_MESSAGE = "interrupted; finished cells are kept, run again to go on"


def handle_sigterm(*_: object) -> None:
    REQUESTED_EXIT_CODES.append(143)
    sys.exit(143)


def handle_sigint(*_: object) -> None:
    REQUESTED_EXIT_CODES.append(130)
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb. -> the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    REQUESTED_EXIT_CODES.clear()
    signal.signal(signal.SIGTERM, handle_sigterm)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handle_sigint)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "" not in sys.path and not sys.flags.safe_path:
        sys.path.append("")  # `adapterbench` finds your own modules here too; last: none of them hides a package
    try:
        if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMAND_HELP:
            from tasks.core.suggestions import suggest_name

            raise UsageError(f"no verb {arguments[0]!r}; {suggest_name(arguments[0], COMMAND_HELP)}")
        top = build_parser()
        options = top.parse_args(arguments)
        if options.verb is None:
            top.print_help()
            return 0
        from benchmark.cli import commands

        return commands.COMMAND_HANDLERS[options.verb](options)
    except UsageError as error:
        print(f"error: {redact_private_text(str(error), redact_folders=False)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(INTERRUPTED_MESSAGE, file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` had enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (lives until the process ends)
        return 0
    except BaseException:
        if REQUESTED_EXIT_CODES:  # whatever the signal became on its way out, as inside the import of a C library
            print(INTERRUPTED_MESSAGE, file=sys.stderr)
            return REQUESTED_EXIT_CODES[0]
        raise
