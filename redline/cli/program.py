"""The commands that need no page: `python -m redline`.

Exit codes: 0 it ran; 1 it ran and failed, a file that cannot be written for one; 2 wrong usage or
bad input; 130 interrupted. Results go to standard output or --output, everything else to standard
error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from redline.cli import service_commands
from redline.cli.command import Command, UsageError
from redline.cli.evaluate import evaluate_arguments, run_evaluate
from redline.cli.generate import generate_arguments, run_generate
from redline.cli.listings import markdown_argument, run_detectors, run_domains
from redline.detection import third_party

EXITS = "exit codes: 0 it ran; 1 it ran and failed; 2 wrong usage or bad input; 130 interrupted"
COMMANDS = {
    "evaluate": Command(
        run_evaluate,
        "rank all detectors on a file of yours, and suggest settings",
        evaluate_arguments,
    ),
    "generate": Command(
        run_generate, "write a labelled CSV of a simulated domain", generate_arguments
    ),
    "detectors": Command(run_detectors, "list the detectors", markdown_argument),
    "domains": Command(run_domains, "list the simulated domains", markdown_argument),
    **service_commands.SERVICE_COMMANDS,
}


def build_parser() -> argparse.ArgumentParser:
    """The table of commands as argparse reads it."""
    whole = argparse.ArgumentParser(
        prog="python -m redline", description="Redline without its page.", epilog=EXITS
    )
    parts = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        part = parts.add_parser(
            name, help=command.help, description=command.help.capitalize() + ".", epilog=EXITS
        )
        command.words(part)
        part.set_defaults(run=command.run)
    return whole


def run_program(words: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code."""
    args = build_parser().parse_args(words)
    try:
        args.run(args)
        sys.stdout.flush()
    except UsageError as error:
        print(f"redline {args.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read our output has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"redline {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nredline {args.command}: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    third_party.register_available()
    sys.exit(run_program())
