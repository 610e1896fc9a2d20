"""Servers that the run starts from a command of the configuration, with a command that is a fake.

The fake speaks just enough of the API and behaves like vLLM in the tested parts: it has workers in
sessions of their own, takes its key from the environment, and says in its log what it does.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from processes import PATIENCE_S, command_of, descendants, is_alive

from cuesheet.config.vlm import VlmConfig
from cuesheet.errors import CuesheetError
from cuesheet.serving import log_diagnosis, process_guard
from cuesheet.serving.backends import BackendFailedError
from cuesheet.serving.gpus import deal_out, visible_gpus
from cuesheet.serving.launch_command import (
    check_executable,
    check_model,
    find_python,
    managed_launch,
)
from cuesheet.serving.model_server import ManagedBackend, Replica

FAKE = """
import http.server, json, os, subprocess, sys, time
model, port = sys.argv[1], int(sys.argv[2])
print("(Worker pid=1) INFO 11-21 12:19:11 [a.py:7] Loading weights 50% of " + model, flush=True)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
time.sleep(float(os.environ.get("FAKE_LOADS_S", "0")))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        key = os.environ["VLLM_API_KEY"]
        allowed = self.path != "/v1/models" or self.headers["Authorization"] == "Bearer " + key
        self.send_response(200 if allowed else 401)
        text = json.dumps({"data": [{"id": model}]}) if "models" in self.path else "fake_hits 7\\n"
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *arguments):
        pass
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def settings(**changes) -> dict:
    config = VlmConfig(serve="managed", model="tiny", managed=changes)
    return {**config.managed.model_dump(), "command": config.managed.words()}


def fake(folder: Path, code: str = FAKE, **changes) -> dict:
    script = folder / "fake_server.py"
    script.write_text(code)
    return settings(command=[sys.executable, str(script), "{model}", "{port}"], **changes)


def replica_of(folder: Path, managed: dict, ready_timeout_s: float = 300.0) -> Replica:
    launch = managed_launch(managed, "tiny", None, None)
    return Replica("replica-0", launch, folder / "replica-0.log", "tiny", ready_timeout_s, 60.0)


def gone(processes: list[psutil.Process]) -> bool:
    return not [process for process in processes if is_alive(process)]


async def eventually(holds) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.02)


# The command


def test_the_key_of_a_vllm_is_in_its_environment_and_not_in_its_command():
    made = managed_launch(settings(), "org/model", None, None)("replica-0")
    assert made.argv[:3] == ["vllm", "serve", "org/model"]
    assert made.argv[made.argv.index("--host") + 1] == "127.0.0.1"
    assert made.argv[made.argv.index("--port") + 1] == str(made.port)
    assert made.full_environment()["VLLM_API_KEY"] == made.api_key
    assert not [word for word in made.argv if made.api_key in word]


def test_every_start_has_its_own_key():
    launch = managed_launch(settings(), "org/model", None, None)
    assert launch("replica-0").api_key != launch("replica-0").api_key


def test_settings_become_arguments_of_vllm_and_further_ones_come_last():
    managed = settings(
        tensor_parallel_size=2,
        max_model_len=8192,
        gpu_memory_utilization=0.8,
        limit_mm_per_prompt={"image": 4},
        extra_args=["--max-num-seqs", 64],
    )
    line = " ".join(managed_launch(managed, "m", ["2", "3"], "/shared")("r").argv)
    assert "--tensor-parallel-size 2" in line
    assert "--max-model-len 8192" in line
    assert "--gpu-memory-utilization 0.8" in line
    assert '--limit-mm-per-prompt {"image":4}' in line
    assert "--allowed-local-media-path /shared" in line
    assert line.endswith("--max-num-seqs 64")


def test_a_server_in_another_environment_gets_its_python_and_its_path():
    made = managed_launch(settings(python="/opt/v/bin/python"), "m", ["5"], None)("r")
    assert made.argv[:3] == ["/opt/v/bin/python", "-m", "vllm.entrypoints.openai.api_server"]
    environment = made.full_environment()
    assert environment["PATH"].startswith("/opt/v/bin:")
    assert environment["CUDA_VISIBLE_DEVICES"] == "5"


def test_auto_is_the_environment_of_make_vllm_env_if_it_exists(tmp_path):
    python = tmp_path / ".venv-vllm-gpu" / "bin" / "python"
    assert find_python(settings(), [tmp_path]) is None
    python.parent.mkdir(parents=True)
    python.touch()
    assert find_python(settings(), [tmp_path]) == str(python)
    assert find_python(settings(python=None), [tmp_path]) is None
    assert find_python(settings(server="transformers"), [tmp_path]) is None
    assert find_python(settings(python="/opt/v/bin/python"), [tmp_path]) == "/opt/v/bin/python"


def test_transformers_gets_the_schema_in_the_prompt():
    made = managed_launch(settings(server="transformers"), "m", None, None)("r")
    assert made.argv[:3] == ["transformers", "serve", "m"]
    assert (made.structured, made.lists_model) == (False, False)
    python = settings(server="transformers", python="/opt/t/bin/python")
    made = managed_launch(python, "m", None, None)("r")
    assert made.argv[1:5] == ["-m", "transformers.cli.transformers", "serve", "m"]
    other = managed_launch(settings(server="ktransformers"), "m", None, None)("r")
    assert other.argv[:3] == ["ktransformers", "serve", "m"]
    assert (other.structured, other.lists_model) == (True, True)


def test_a_command_of_ones_own_is_filled_in_and_its_key_is_not_logged():
    managed = settings(command="serve '{model}' --at={host}:{port} --key {api_key}", env={"A": 1})
    made = managed_launch(managed, "a b", None, None)("r")
    assert made.argv == ["serve", "a b", f"--at=127.0.0.1:{made.port}", "--key", made.api_key]
    assert made.full_environment()["A"] == "1"
    assert made.api_key not in made.words()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"command": "serve {model}"}, "no {port}"),
        ({"command": "serve {modle} {port}"}, "{modle}"),
        ({"command": "serve 'x {port}"}, "split"),
        ({"env": {"HF_TOKEN": "abc"}}, "looks like a key"),
        ({"limit_mm_per_prompt": {"images": 3}}, "'images'"),
        ({"limit_mm_per_prompt": {"image": -1}}, "0 or more"),
    ],
)
def test_a_user_error_in_the_settings_is_reported(changes, said):
    with pytest.raises(ValueError, match=said.replace("{", r"\{")):
        settings(**changes)


def test_an_executable_that_is_missing_is_named_before_anything_starts():
    with pytest.raises(CuesheetError, match=r"vlm\.managed\.python: /no/such/python"):
        check_executable(settings(python="/no/such/python"))


# GPUs


def test_gpus_of_the_environment_are_dealt_out_in_order():
    environment = {"CUDA_VISIBLE_DEVICES": "4,GPU-8a2f,6,7"}
    assert deal_out("auto", 2, None, 2, environment) == [["4", "GPU-8a2f"], ["6", "7"]]
    assert deal_out("auto", 3, None, 1, environment) == [["4"], ["GPU-8a2f"], ["6"]]


def test_too_few_gpus_are_an_error_that_says_what_is_there_and_what_to_do():
    with pytest.raises(CuesheetError, match=r"2 replicas of 2 need 4, but there are 3 \(0, 1, 2\)"):
        deal_out("auto", 2, None, 2, {"CUDA_VISIBLE_DEVICES": "0,1,2"})
    with pytest.raises(CuesheetError, match=r"set vlm\.replicas to 1"):
        deal_out(["0", "1"], 2, None, 2)


def test_all_gpus_of_the_machine_are_used_if_none_are_named(tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 0\necho 1\n")
    tool.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    assert visible_gpus(environment) == (["0", "1"], "nvidia-smi")
    assert deal_out("auto", 2, None, 1, environment) == [["0"], ["1"]]


def test_without_a_gpu_it_is_left_to_the_server_unless_more_than_one_is_needed(tmp_path):
    environment = {"PATH": str(tmp_path)}
    assert deal_out("auto", 2, None, 1, environment) == [None, None]
    assert deal_out("leave", 1, None, 4, environment) == [None]
    with pytest.raises(CuesheetError, match="but there are none"):
        deal_out("auto", 1, None, 2, environment)


# The process


async def test_a_server_is_ready_when_it_lists_its_model_and_nothing_of_it_stays(tmp_path):
    replica = replica_of(tmp_path, fake(tmp_path))
    upstream = await replica.start()
    processes = [psutil.Process(replica.pid), *descendants(replica.pid)]
    assert len(processes) == 3  # process guard, server, its worker
    assert [model.id for model in await upstream.list_models()] == ["tiny"]
    await upstream.close()
    await replica.stop()
    assert gone(processes)
    assert (tmp_path / "replica-0.metrics.txt").read_text() == "fake_hits 7\n"


async def test_while_it_loads_one_sees_the_last_line_of_its_log(tmp_path):
    replica = replica_of(tmp_path, fake(tmp_path, env={"FAKE_LOADS_S": 3600}))
    backend = ManagedBackend([replica], "tiny", 0, lambda cause: None)
    waiting = asyncio.create_task(backend.pick("d/0"))
    await eventually(lambda: "Loading" in str(backend.loading()))
    ((waited_s, line),) = backend.loading().values()
    assert waited_s >= 0
    assert line == "Loading weights 50% of tiny"
    waiting.cancel()
    await backend.close()


async def test_another_port_is_used_if_one_was_taken_meanwhile(tmp_path):
    code = (
        "import os, sys\n"
        "if not os.path.exists(sys.argv[0] + '.once'):\n"
        "    open(sys.argv[0] + '.once', 'w').close()\n"
        "    sys.exit('OSError: [Errno 98] Address already in use')\n"
    )
    replica = replica_of(tmp_path, fake(tmp_path, code + FAKE))
    await (await replica.start()).close()
    await replica.stop()


async def test_arguments_that_an_older_vllm_does_not_know_are_left_out(tmp_path):
    tool = tmp_path / "vllm"
    code = (
        f"#!{sys.executable}\n"
        "import sys\n"
        "for word in sys.argv:\n"
        "    if 'trust' in word or 'structured' in word:\n"
        "        sys.exit('vllm: error: unrecognized arguments: ' + word)\n"
        "port = sys.argv[sys.argv.index('--port') + 1]\n"
        "sys.argv = [sys.argv[0], sys.argv[2], port]\n"
    )
    tool.write_text(code + FAKE)
    tool.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    replica = replica_of(tmp_path, settings(env={"PATH": path}))
    await (await replica.start()).close()
    words = command_of(psutil.Process(replica.pid))
    await replica.stop()
    assert not {"--trust-request-mm-kwargs", "--structured-outputs-config"} & set(words)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "out of memory"),
        ("OSError: org/none is not a local folder and is not a valid model", "vlm.model"),
        ("ModuleNotFoundError: No module named 'vllm'", "package is missing"),
        (
            "ValueError: Using `device_map` requires `accelerate`. You can install it with",
            "package",
        ),
        ("ImportError: Missing dependencies. Install with `pip install x[serving]`", "package"),
        ("OSError: [Errno 98] Address already in use", "port was taken"),
        ("RuntimeError: Failed to infer device type", "no GPU"),
        ("api_server.py: error: unrecognized arguments: --frobnicate", "--frobnicate"),
    ],
)
async def test_why_a_server_cannot_start_is_said_within_seconds(tmp_path, said, meant):
    code = f"import sys\nprint('INFO loading')\nprint({said!r}, file=sys.stderr)\nsys.exit(1)\n"
    replica = replica_of(tmp_path, fake(tmp_path, code))
    failed = []
    backend = ManagedBackend([replica], "tiny", 3, failed.append)
    begun = time.monotonic()
    with pytest.raises(BackendFailedError, match=meant) as caught:
        await backend.pick("d/0")
    assert time.monotonic() - begun < 60  # of 300 s until a server has to be ready
    assert said in str(caught.value)
    assert failed == [str(caught.value)]
    await backend.close()


# The process guard


def start_guard(folder: Path, code: str, grace_s: float = 5.0) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable,
            "-I",
            process_guard.__file__,
            str(grace_s),
            sys.executable,
            "-c",
            code,
        ],
        stdin=subprocess.PIPE,
        cwd=folder,
        start_new_session=True,
    )


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; " \\
    "time.sleep(3600)'], start_new_session=True); open('up', 'w').close(); time.sleep(3600)"
subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("way", ["let go", "asked to end"])
async def test_what_does_not_end_by_itself_is_killed_to_the_last_grandchild(tmp_path, way):
    process = start_guard(tmp_path, STUBBORN, grace_s=0.2)
    await eventually((tmp_path / "up").exists)
    processes = descendants(process.pid)
    assert len(processes) == 3
    if way == "let go":
        process.stdin.close()
    else:
        process.terminate()
    assert await asyncio.to_thread(process.wait, 120) == -signal.SIGKILL
    assert gone(processes)


async def test_a_command_that_ends_takes_what_it_left_behind_with_it(tmp_path):
    code = "import os\n" + STUBBORN.replace(
        "time.sleep(3600)\n",
        "while not os.path.exists('end'): time.sleep(0.05)\nsys.exit(3)\n",
    )
    process = start_guard(tmp_path, code)
    await eventually(lambda: len(descendants(process.pid)) == 3)
    processes = descendants(process.pid)
    (tmp_path / "end").touch()
    assert await asyncio.to_thread(process.wait, 120) == 3
    assert gone(processes)


async def test_a_command_has_time_to_terminate(tmp_path):
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), sys.exit(9)))\n"
        "open('up', 'w').close()\n"
        "time.sleep(3600)\n"
    )
    process = start_guard(tmp_path, code, grace_s=PATIENCE_S)
    await eventually((tmp_path / "up").exists)
    process.stdin.close()
    assert await asyncio.to_thread(process.wait, PATIENCE_S) == 9


# The log


def test_a_progress_bar_shows_its_last_state_and_noise_is_left_out():
    log = (
        "(EngineCore pid=9) INFO 11-21 12:19:11 [loader.py:7] Starting to load\n"
        "Loading safetensors checkpoint shards:  25% | 1/4\rLoading safetensors checkpoint shards: "
        " 50% | 2/4\r\n"
        "(APIServer pid=3) INFO 11-21 12:19:11 [launcher.py:195] Route: /ping, Methods: POST\n\n"
    )
    assert log_diagnosis.last_line(log) == "Loading safetensors checkpoint shards:  50% | 2/4"


def test_a_log_without_a_known_cause_has_none():
    assert log_diagnosis.cause_in("INFO all is well\nTraceback\nValueError: 7\n") is None


def test_a_model_folder_that_does_not_exist_is_named_before_the_server_starts(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    for model in ("Qwen/Qwen3-VL-4B-Instruct", str(tmp_path / "model")):
        check_model(settings(), model)
    check_model(settings(command=["serve", "{port}"]), "/no/such/model")
    with pytest.raises(CuesheetError, match=r"vlm.model: /no/such/model does not exist .* hub"):
        check_model(settings(), "/no/such/model")
    with pytest.raises(CuesheetError, match=f"; write {tmp_path}/model. Expected"):
        check_model(settings(), "~/model")
