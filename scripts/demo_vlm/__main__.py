"""`python -m demo_vlm`: start the server of the demo model on 127.0.0.1."""

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from demo_vlm import MODEL_ID
from demo_vlm.server import serve


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM, SIGINT or the parent's end; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m demo_vlm",
        description=f"Serve {MODEL_ID} with the OpenAI chat API. It is not a language model.",
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port (%(default)s)")
    parser.add_argument("--port-file", type=Path, help="the port is written here once it listens")
    parser.add_argument(
        "--api-key-env",
        metavar="NAME",
        help="environment variable that holds the API key; without it, every caller is answered",
    )
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    api_key = os.environ.get(options.api_key_env) if options.api_key_env else None
    if options.api_key_env and not api_key:
        print(
            f"--api-key-env {options.api_key_env}: that environment variable is not set; "
            "set it to the API key that callers send, or leave the option out",
            file=sys.stderr,
        )
        return 2
    try:
        asyncio.run(serve(options, api_key))
    except OSError as error:
        print(f"cannot listen on 127.0.0.1:{options.port}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
