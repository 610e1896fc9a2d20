"""`python -m demo_vlm`: start the server of the demo model."""

import argparse
import logging
import os
import sys
from pathlib import Path

from demo_vlm import MODEL_ID


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m demo_vlm",
        description=(
            f"Serve {MODEL_ID}, classical vision behind the OpenAI chat API. "
            "It is not a language model."
        ),
    )
    parser.add_argument("--host", default="127.0.0.1", help="loopback address (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port (%(default)s)")
    parser.add_argument("--port-file", type=Path, help="the port is written here once it listens")
    parser.add_argument(
        "--api-key-env",
        metavar="NAME",
        help="environment variable that holds the API key; without it, every caller is answered",
    )
    parser.add_argument("--workers", type=int, default=0, help="threads for images (0: by cores)")
    parser.add_argument("--parent-pid", type=int, help="end when this is no longer the parent")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM, SIGINT or the parent's end; the exit status."""
    options = arguments(argv)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    api_key = None
    if options.api_key_env:
        api_key = os.environ.get(options.api_key_env)
        if not api_key:
            print(
                f"--api-key-env {options.api_key_env}: that environment variable is not set; "
                "set it to the API key that callers send, or leave the option out",
                file=sys.stderr,
            )
            return 2
    # Before numpy is imported: one thread a call, concurrency comes from the calls.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from demo_vlm import server

    try:
        return server.serve(
            host=options.host,
            port=options.port,
            port_file=options.port_file,
            api_key=api_key,
            workers=options.workers or max(1, min(4, os.cpu_count() or 1)),
            parent_pid=options.parent_pid,
        )
    except OSError as error:
        print(f"cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
