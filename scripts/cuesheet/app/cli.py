"""The command `cuesheet`: one entry point for every tool of the library.

Each subcommand is the `main(arguments)` of a module, imported only when it is called, so that
`cuesheet status` does not load pandas. A `main` returns nothing or an exit status, and raises
CuesheetError for a user error.
"""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version

from cuesheet.errors import CuesheetError
from cuesheet.text import did_you_mean

COMMANDS = {
    "status": ("cuesheet.cluster.status", "show how far a run is, from its files"),
    "check-server": ("cuesheet.app.check_server", "check the model server and print the findings"),
    "evaluate": ("cuesheet.app.evaluate", "score annotations against reference segments"),
    "compare": ("cuesheet.report.compare", "compare runs on the same episodes side by side"),
    "retry": ("cuesheet.app.retry", "request invalid replies and failed stages again"),
    "corrections": ("cuesheet.report.corrections_cli", "export subtasks as correction files"),
    "review": ("cuesheet.report.review_server", "serve the review page and save corrections"),
    "push": ("cuesheet.report.upload", "upload an annotated dataset to a hub"),
    "estimate": ("cuesheet.app.estimate_cli", "estimate what a run costs, before it starts"),
    "tune": ("cuesheet.app.tune", "try a grid of settings on episodes with a reference"),
    "signals": ("cuesheet.app.signals_cli", "show the grippers and arms found in a dataset"),
    "cache": ("cuesheet.serving.cache_cli", "verify, summarize or prune the response cache"),
    "wgo-bench": ("cuesheet.evaluation.wgo_bench", "convert a WGO-Bench file into a dataset"),
    "config": ("cuesheet.config.generate", "regenerate config.yaml, its schema and reference"),
}


def usage() -> str:
    """Return the text of `cuesheet --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return (
        "usage: cuesheet COMMAND [ARGUMENT ...]\n\n"
        "Tools for the datasets that the Cuesheet workflow annotates. The workflow itself\n"
        "runs with `snakemake --cores all`.\n\n"
        "commands:\n" + "\n".join(lines) + "\n\n"
        "`cuesheet COMMAND --help` describes a command."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit status; 1 for a user error, 2 for an unknown command.

    A reader that closes the output early, such as `head`, ends the command without a message.
    """
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes the output once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return status


def _run(arguments: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(usage())
        return 0 if given else 2
    if given[0] == "--version":
        print(f"cuesheet {version('cuesheet-workflow')}")
        return 0
    name, *rest = given
    if name not in COMMANDS:
        near = did_you_mean(name, COMMANDS)
        hint = f"; did you mean {near!r}?" if near else "."
        print(
            f"cuesheet: unknown command {name!r}{hint} Commands: {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    module = importlib.import_module(COMMANDS[name][0])
    try:
        return int(module.main(rest) or 0)
    except CuesheetError as error:
        print(f"cuesheet {name}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
