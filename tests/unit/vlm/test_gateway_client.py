"""The connection of a stage job to the run's gateway."""

import signal
import socket
import subprocess
import sys

from processes import PATIENCE_S

WAITING_JOB = """
import asyncio, pathlib, signal, sys
from cuesheet.vlm.gateway_client import GatewayClient

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if pytest runs in the background
client = GatewayClient(sys.argv[1], "key", pathlib.Path("server.json"))
asyncio.run(client.post("/chat/completions", {}, {}))
"""


def test_an_interrupted_job_does_not_wait_for_the_responses_to_its_requests():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        job = subprocess.Popen(
            [sys.executable, "-c", WAITING_JOB, url], stderr=subprocess.PIPE, text=True
        )
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1000).startswith(b"POST /v1/chat/completions")
            job.send_signal(signal.SIGINT)
            _, errors = job.communicate(timeout=PATIENCE_S)
    assert job.returncode != 0
    assert "KeyboardInterrupt" in errors
