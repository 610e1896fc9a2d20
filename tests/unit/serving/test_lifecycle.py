"""The process that serves a run: started late, restarted when needed, never left behind."""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from chat_server import KEY, completion, refusal, serving
from gateway_setup import supervisor_settings
from processes import PATIENCE_S, command_of, eventually, imported_after, matching
from pydantic import BaseModel

from cuesheet.errors import CuesheetError
from cuesheet.serving import launch_command, lifecycle
from cuesheet.serving.backends import BackendFailedError
from cuesheet.serving.dispatcher import Counters, Dispatcher
from cuesheet.serving.launch_command import Launch
from cuesheet.serving.model_server import ManagedBackend, Replica
from cuesheet.vlm.client import Image, Vlm
from cuesheet.vlm.errors import VlmError
from cuesheet.vlm.replies import Acknowledgement, Description

PROMPTS = {"plan_describe": "0" * 64}


@pytest.fixture
def run(tmp_path):
    """Start a server with changed settings; whatever was started is stopped after the test."""
    started = []

    def start(**changes) -> Path:
        started.append(lifecycle.start(supervisor_settings(tmp_path, **changes), tmp_path / "runs"))
        return started[-1]

    yield start
    for server_file in started:
        lifecycle.stop(server_file)


def state_of(server_file: Path) -> dict:
    return json.loads(server_file.read_text())


def processes_of(server_file: Path) -> list[psutil.Process]:
    """Every live process that names the run's folder in its command line."""
    folder = str(server_file.parent)
    return matching(lambda process: any(folder in word for word in process.cmdline()))


def model_servers_of(server_file: Path) -> list[psutil.Process]:
    return [
        one
        for one in processes_of(server_file)
        if "demo_vlm" in command_of(one) and not is_guard(one)
    ]


def is_guard(process: psutil.Process) -> bool:
    return any(word.endswith("process_guard.py") for word in command_of(process))


def question(text: str, reply: type[BaseModel] = Acknowledgement) -> dict:
    return {
        "name": "ask",
        "prompt": "plan_describe",
        "reply": reply,
        "system": "You annotate.",
        "media": [],
        "text": text,
        "needs_media": False,
    }


def ask(server_file: Path, *texts: str, reply: type[BaseModel] = Acknowledgement) -> list:
    async def all_of_them():
        async with Vlm.connect(server_file, {}, "demo/000000", PROMPTS) as vlm:
            return await asyncio.gather(*(vlm.ask(**question(text, reply)) for text in texts))

    return asyncio.run(all_of_them())


def test_a_question_goes_all_the_way_to_the_embedded_model_and_back(run):
    server_file = run()
    (answer,) = ask(server_file, "Task: open the drawer\nAcknowledge it.")
    assert "drawer" in answer.value.speech
    state = state_of(server_file)
    assert state["state"] == "ready"
    assert stat.S_IMODE(server_file.stat().st_mode) == 0o600
    assert state["parent_pid"] == os.getpid()
    assert set(state["logs"]) == {"supervisor", "replica-0"}
    assert Path(state["logs"]["replica-0"]).exists()


def test_images_reach_the_embedded_model(run, demo_v3):
    import cv2
    import numpy as np

    image = np.full((96, 96, 3), 90, np.uint8)
    image[30:60, 30:60] = (0, 0, 220)
    png = cv2.imencode(".png", image)[1].tobytes()
    server_file = run()

    async def describe():
        async with Vlm.connect(server_file, {}, "demo/000000", PROMPTS) as vlm:
            return await vlm.ask(
                name="describe",
                prompt="plan_describe",
                reply=Description,
                system="You annotate.",
                media=[Image(png, "image/png")],
                text="Task: push the block\nImage 1: 0.00 s\nDescribe what is visible.",
            )

    answer = asyncio.run(describe())
    assert answer.value.scene
    assert answer.call["outcome"] == "ok"


def test_stop_ends_everything_and_may_be_called_twice(run):
    server_file = run()
    ask(server_file, "Task: open the drawer")
    assert len(model_servers_of(server_file)) == 1
    lifecycle.stop(server_file)
    assert processes_of(server_file) == []
    assert state_of(server_file)["state"] == "stopped"
    lifecycle.stop(server_file)
    lifecycle.stop(server_file.parent / "never.json")


def test_stop_right_after_start_leaves_nothing(run):
    server_file = run()
    lifecycle.stop(server_file)
    assert processes_of(server_file) == []
    assert state_of(server_file)["state"] == "stopped"


def test_a_run_whose_calls_are_all_cached_starts_no_model_server(run):
    question = "Task: open the drawer"
    first = run()
    ask(first, question)
    lifecycle.stop(first)
    second = run()
    (answer,) = ask(second, question)
    assert answer.call["cache_hit"] is True
    assert model_servers_of(second) == []
    assert not (second.parent / "replica-0.log").exists()
    lifecycle.stop(second)


def test_the_cache_survives_a_killed_supervisor(run):
    question = "Task: open the drawer"
    first = run()
    ask(first, question)
    os.kill(state_of(first)["pid"], signal.SIGKILL)
    (answer,) = ask(run(), question)
    assert answer.call["cache_hit"] is True


def test_a_killed_supervisor_leaves_no_model_server(run):
    server_file = run(replicas=2)
    ask(server_file, "Task: open the drawer")
    eventually(lambda: len(model_servers_of(server_file)) == 2)
    os.kill(state_of(server_file)["pid"], signal.SIGKILL)
    eventually(lambda: processes_of(server_file) == [])


OWNER = """
import asyncio, sys
from pathlib import Path
from cuesheet.serving.launch_command import Launch
from cuesheet.serving.model_server import Replica
launch = Launch([sys.executable, "-c", "import time; time.sleep(3600)", sys.argv[1]], {}, "key", 9)
replica = Replica("r", lambda name: launch, Path(sys.argv[1]) / "log", "m", 3600.0, 5.0)
asyncio.run(replica.start())
"""


def test_a_server_that_does_not_watch_its_parent_dies_with_it_too(tmp_path):
    marker = tmp_path / "run" / "server.json"
    marker.parent.mkdir()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(marker.parent)],
    )
    try:
        eventually(lambda: len(processes_of(marker)) == 3)  # owner, guard, server
    finally:
        owner.kill()
        owner.wait()
    eventually(lambda: processes_of(marker) == [])


PARENT = """
import json, sys, time
from pathlib import Path
from cuesheet.serving import lifecycle
print(lifecycle.start(json.loads(sys.argv[1]), Path(sys.argv[2])), flush=True)
time.sleep(3600)
"""


def test_a_killed_run_leaves_no_process(tmp_path):
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            PARENT,
            json.dumps(supervisor_settings(tmp_path)),
            str(tmp_path / "runs"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        server_file = Path(parent.stdout.readline().strip())
        ask(server_file, "Task: open the drawer")
        assert len(processes_of(server_file)) >= 2
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    eventually(lambda: processes_of(server_file) == [])
    assert state_of(server_file)["state"] == "stopped"


def test_a_model_server_that_is_killed_is_replaced_and_no_call_is_lost(run):
    server_file = run()
    ask(server_file, "Task: open the drawer")
    (before,) = model_servers_of(server_file)
    before.kill()
    answers = ask(server_file, *(f"Task: push block {n}" for n in range(6)))
    assert all(answer.value is not None for answer in answers)
    (after,) = model_servers_of(server_file)
    assert after.pid != before.pid


def test_a_server_that_lacks_the_model_fails_the_run_at_once_with_the_cause(run):
    server_file = run(model="no-such-model")
    with pytest.raises(VlmError, match="no-such-model"):
        ask(server_file, "Task: open the drawer")
    assert state_of(server_file)["state"] == "failed"
    with pytest.raises(CuesheetError, match=r"(?s)cuesheet-demo-1.*no-such-model"):
        ask(server_file, "Task: close the drawer")


async def failure_of(folder: Path, code: str, ready_timeout_s: float = PATIENCE_S) -> str:
    """Why a server that runs this Python code does not come up; checks that nothing is left."""
    failed = []
    replica = Replica(
        "replica-0",
        lambda name: Launch([sys.executable, "-c", code], {}, "key", port=9),
        folder / "replica-0.log",
        "m",
        ready_timeout_s,
        5.0,
    )
    backend = ManagedBackend([replica], "m", 2, failed.append)
    try:
        with pytest.raises(BackendFailedError) as caught:
            await backend.pick("d/0")
        assert backend.state() == "failed"
        assert failed == [str(caught.value)]
        return str(caught.value)
    finally:
        await backend.close()
        assert replica.pid is None or not psutil.pid_exists(replica.pid)


async def test_a_server_that_ends_at_its_start_is_reported_with_the_end_of_its_log(tmp_path):
    code = "import sys; print('loading'); sys.exit('CUDA out of memory')"
    message = await failure_of(tmp_path, code)
    assert "ended with exit status 1" in message
    assert "CUDA out of memory" in message


async def test_a_server_that_does_not_become_ready_is_terminated(tmp_path):
    message = await failure_of(
        tmp_path,
        "import time; print('still loading', flush=True); time.sleep(3600)",
        ready_timeout_s=1.0,
    )
    assert "not ready within 1 s" in message
    assert "ready_timeout_s" in message


async def test_a_command_that_is_not_there_is_reported(tmp_path):
    failed = []
    replica = Replica(
        "replica-0",
        lambda name: Launch(["/no/such/command"], {}, "key", port=9),
        tmp_path / "log",
        "m",
        5.0,
        5.0,
    )
    backend = ManagedBackend([replica], "m", 2, failed.append)
    with pytest.raises(BackendFailedError, match="/no/such/command"):
        await backend.pick("d/0")
    await backend.close()


CRASHER = """
import sys, http.server, json, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"data": [{"id": "m"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        print("crash", file=sys.stderr, flush=True)
        os._exit(7)
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
with open(sys.argv[1] + ".tmp", "w") as file:
    file.write(str(server.server_port))
os.replace(sys.argv[1] + ".tmp", sys.argv[1])
server.serve_forever()
"""


async def test_restarts_are_bounded(tmp_path):
    starts = []

    def launch(name):
        starts.append(name)
        port_file = tmp_path / "port"
        port_file.unlink(missing_ok=True)
        argv = [sys.executable, "-c", CRASHER, str(port_file)]
        return Launch(argv, {}, "key", port_file=port_file)

    failed = []
    replica = Replica("replica-0", launch, tmp_path / "log", "m", 300.0, 60.0)
    backend = ManagedBackend([replica], "m", 2, failed.append)
    try:

        async def nap(_):
            await asyncio.sleep(0.05)

        dispatcher = Dispatcher(backend, 1, 1000, Counters(), sleep=nap)
        body = {"model": "m", "messages": [{"role": "user", "content": "crash"}]}
        with pytest.raises(BackendFailedError, match="exit status 7"):
            await dispatcher.complete(body, "d/0")
    finally:
        await backend.close()
    assert len(starts) == 3
    assert len(failed) == 1


async def _external(folder: Path, url: str, text: str, **changes):
    changes = {"serve": "external", "base_urls": [url], **changes}
    server_file = await asyncio.to_thread(
        lifecycle.start, supervisor_settings(folder, **changes), folder / "runs"
    )
    try:
        async with Vlm.connect(server_file, {}, "demo/000000", PROMPTS) as vlm:
            return await vlm.ask(**question(text))
    finally:
        await asyncio.to_thread(lifecycle.stop, server_file)


def holds_key(folder: Path) -> list[Path]:
    return [
        path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
    ]


async def test_the_key_of_an_external_server_is_in_no_file_that_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_MODEL_KEY", KEY)
    async with serving(lambda body, n: completion('{"speech": "Yes."}')) as external:
        answer = await _external(tmp_path, external.url, "hello", api_key_env="TEST_MODEL_KEY")
        assert answer.value.speech == "Yes."
        assert answer.call["key"]
    assert list((tmp_path / "cache").rglob("*.json"))
    assert holds_key(tmp_path) == []


async def test_the_key_may_come_from_a_file(tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text(f"{KEY}\n")
    async with serving(lambda body, n: completion('{"speech": "Yes."}')) as external:
        answer = await _external(tmp_path, external.url, "hello", api_key_file=str(key_file))
    assert answer.value is not None
    assert holds_key(tmp_path) == [key_file]


async def test_a_server_that_repeats_the_key_in_its_refusal_does_not_leak_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_MODEL_KEY", KEY)
    async with serving(lambda body, n: refusal(403, f"key {KEY} is blocked")) as external:
        with pytest.raises(VlmError, match=r"key \*\*\* is blocked") as caught:
            await _external(tmp_path, external.url, "hello", api_key_env="TEST_MODEL_KEY")
    assert KEY not in str(caught.value)
    assert holds_key(tmp_path) == []


async def test_a_key_that_is_not_set_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.delenv("TEST_MODEL_KEY", raising=False)
    with pytest.raises(CuesheetError, match="TEST_MODEL_KEY"):
        await _external(tmp_path, "http://127.0.0.1:9/v1", "hello", api_key_env="TEST_MODEL_KEY")


def test_a_supervisor_that_cannot_start_says_so_to_the_jobs(tmp_path):
    (tmp_path / "config.json").write_text("{")
    arguments = ["-m", "cuesheet.serving.lifecycle", str(tmp_path), str(os.getpid())]
    result = subprocess.run([sys.executable, *arguments], check=False)
    assert result.returncode == 1
    with pytest.raises(CuesheetError, match="gateway cannot start"):
        ask(tmp_path / "server.json", "Task: open the drawer")


def test_start_and_stop_import_nothing_heavy():
    heavy = {"openai", "aiohttp", "httpx", "pydantic", "psutil", "asyncio"}
    assert not imported_after("import cuesheet.serving.lifecycle") & heavy


def test_the_demo_command_never_shows_its_key(tmp_path):
    made = launch_command.demo_launch(tmp_path)("replica-0")
    assert not any(made.api_key in word for word in made.argv)
    assert made.api_key != launch_command.demo_launch(tmp_path)("replica-0").api_key


def test_folders_of_ended_runs_do_not_pile_up(tmp_path):
    runs = tmp_path / "runs"
    for number in range(lifecycle._MAX_RUN_FOLDERS + 5):
        folder = runs / f"20200101-0000{number:02d}-1-a"
        folder.mkdir(parents=True)
        state = {"state": "ready" if number in (1, 2) else "stopped"}
        if number == 2:  # its supervisor was killed on this machine
            state |= {"host": socket.gethostname(), "pid": 2**22 + 1}
        (folder / "server.json").write_text(json.dumps(state))
    started = lifecycle.start(supervisor_settings(tmp_path), runs)
    lifecycle.stop(started)
    left = sorted(folder.name for folder in runs.iterdir())
    assert len(left) == lifecycle._MAX_RUN_FOLDERS + 1
    assert started.parent.name in left
    assert left[0] == "20200101-000001-1-a"  # as far as its file says, it still runs
    assert "20200101-000002-1-a" not in left
