"""A script that the job server runs behaves as if Python had run it."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from processes import PATIENCE_S, eventually

from cuesheet.job_log import INTERRUPTED_STATUS
from cuesheet.serving import job_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the job server is for Linux")

Start = Callable[..., subprocess.Popen]


@pytest.fixture
def server(tmp_path) -> Iterator[job_server.JobServer]:
    started = job_server.JobServer(tmp_path)
    deadline = time.monotonic() + PATIENCE_S
    while not started.socket.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    yield started
    started.stop()


@pytest.fixture
def start(server, tmp_path) -> Start:
    """Starts a script's text in the way that Snakemake does."""

    def begin(text: str, rule: str = "example", **options) -> subprocess.Popen:
        script = tmp_path / f"tmpabc.{rule}.py"
        script.write_text(text)
        command = f"{server.shell_prefix} {sys.executable} {shlex.quote(str(script))}"
        return subprocess.Popen(
            ["bash", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    return begin


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return path.read_text()


def test_it_has_the_folder_environment_arguments_and_output_of_its_job(start, tmp_path):
    text = (
        "import os, sys\n"
        "print(os.getcwd(), os.environ['A_JOB_S_OWN'], __name__, sys.argv[0] == __file__)\n"
        "print('to stderr', 'HOME' in os.environ, file=sys.stderr)\n"
    )
    environment = {"PATH": os.environ["PATH"], "A_JOB_S_OWN": "ö = 1\n2"}
    job = start(text, cwd=tmp_path, env=environment)
    out, err = job.communicate()
    assert out == f"{tmp_path} ö = 1\n2 __main__ True\n"
    assert err == "to stderr False\n"
    assert job.returncode == 0


def test_it_runs_in_a_fork_of_the_server(start, server):
    out, _ = start("import os; print(os.getppid())").communicate()
    assert int(out) == server._process.pid


@pytest.mark.parametrize("rule", ["annotate_plan", "annotate_interjections", "annotate_vqa"])
def test_what_all_jobs_of_a_stage_need_is_prepared_once(start, rule):
    text = f"""
import sys
before = set(sys.modules)
import pyarrow, snakemake.io
from PIL import Image
from cuesheet.config import prompt_files
from cuesheet.vlm.prompts import Prompts, _template
names = prompt_files.of_stages(["{rule.removeprefix("annotate_")}"])
compiled = _template.cache_info().misses
Prompts(prompt_files.bundled_files() / "config" / "prompts" / f"{{name}}.md" for name in names)
pyarrow.array([1.0])
Image.preinit()
print(_template.cache_info().misses - compiled, sorted(set(sys.modules) - before))
"""
    out, err = start(text, rule).communicate()
    assert (out, err) == ("0 []\n", "")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("import sys; sys.exit(3)", 3),
        ("raise SystemExit", 0),
        ("raise SystemExit('no')", 1),
        ("1 / 0", 1),
        ("import os; os._exit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.kill(os.getpid(), 15)", -15),
    ],
)
def test_it_ends_as_the_script_does(start, text, code):
    job = start(text)
    job.communicate()
    assert job.returncode == code


def test_what_is_to_be_done_at_exit_is_done(start):
    text = (
        "import atexit, threading, time\n"
        "atexit.register(print, 'at exit')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\n"
    )
    assert start(text).communicate()[0] == "thread\nat exit\n"


def test_memory_that_is_shared_with_the_server_is_not_touched_at_its_end(start):
    # If Python deletes all modules, every page is copied first.
    text = (
        "import os, sys\n"
        "class Kept:\n    def __del__(self, write=os.write):\n        write(1, b'deleted')\n"
        "os.kept = Kept()\n"
        "print('last words', end='')\n"
        "sys.exit(3)\n"
    )
    job = start(text)
    assert job.communicate()[0] == "last words"
    assert job.returncode == 3


def test_the_traceback_of_a_failure_is_shown(start):
    _, err = start("def broken():\n    return {}['key']\nbroken()\n").communicate()
    assert "KeyError: 'key'" in err
    assert "in broken" in err


def test_an_interrupted_job_can_clean_up(start, tmp_path):
    text = (
        "import pathlib, time\n"
        "pathlib.Path('here').write_text('begun')\n"
        "try:\n    time.sleep(60)\nfinally:\n    pathlib.Path('here').unlink()\n"
    )
    job = start(text, cwd=tmp_path)
    wait_for(tmp_path / "here")
    job.send_signal(signal.SIGINT)
    _, err = job.communicate()
    assert (err, job.returncode) == ("interrupted\n", INTERRUPTED_STATUS)
    assert not (tmp_path / "here").exists()


SLEEPER = (
    "import pathlib, os, subprocess, time\n"
    "child = subprocess.Popen(['sleep', '60'])\n"
    "pathlib.Path('pids').write_text(f'{os.getpid()} {child.pid}')\n"
    "time.sleep(60)\n"
)


def gone(pids: str) -> bool:
    eventually(lambda: not [pid for pid in pids.split() if psutil.pid_exists(int(pid))])
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_job_ends_with_its_child_processes(start, tmp_path, number):
    job = start(SLEEPER, cwd=tmp_path)
    pids = wait_for(tmp_path / "pids")
    job.send_signal(number)
    assert job.wait() == -number
    assert gone(pids)


def test_another_job_is_not_concerned(start, tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    one, other = (start(SLEEPER, cwd=folder) for folder in folders)
    pids = [wait_for(folder / "pids") for folder in folders]
    one.kill()
    assert gone(pids[0])
    assert other.poll() is None
    assert psutil.pid_exists(int(pids[1].split()[0]))
    other.kill()


def test_jobs_end_with_the_server(start, server, tmp_path):
    job = start(SLEEPER, cwd=tmp_path)
    pids = wait_for(tmp_path / "pids")
    server.stop()
    job.communicate()
    assert job.returncode != 0
    assert gone(pids.split()[0])
    assert not server.socket.parent.exists()


def test_a_server_that_ends_before_it_reads_the_request_is_one_line(tmp_path):
    client = Path(job_server.__file__).with_name("job_client.py")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        job = subprocess.Popen(
            [sys.executable, "-I", "-S", client, tmp_path / "socket", sys.executable, "job.py"],
            stderr=subprocess.PIPE,
            text=True,
        )
        listener.settimeout(PATIENCE_S)
        connection, _ = listener.accept()
        connection.recv(4)
        connection.recv(1, socket.MSG_PEEK)  # the request has arrived
        connection.close()
    _, errors = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 1
    assert errors == "The run's job server ended while this job ran; see its log.\n"


def test_without_a_server_python_runs_the_script(start, server):
    server.stop()
    job = start("import os, sys; print(os.getpid(), sys.flags.isolated)")
    assert job.communicate()[0] == f"{job.pid} 0\n"
    assert job.returncode == 0


def test_benchmark_files_get_the_cpu_time_and_memory_of_the_job(start, server, tmp_path):
    benchmark = tmp_path / "results/d/benchmarks/example/000000.tsv"
    benchmark.parent.mkdir(parents=True)
    header = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"
    benchmark.write_text(f"{header}\n2.00\t0:00:02" + "\t0.01" * 8 + "\n")
    log = tmp_path / "results/d/logs/example/000000.log"
    text = (
        "from cuesheet import job_log\n"
        f"with job_log.to_file({str(log)!r}):\n"
        "    block = bytearray(120_000_000)\n"
        "    import time; begin = time.process_time()\n"
        "    while time.process_time() < begin + 0.5: pass\n"
    )
    start(text).communicate()
    server.stop()
    first, row = (line.split("\t") for line in benchmark.read_text().splitlines())
    found = dict(zip(first, row, strict=True))
    assert "\t".join(first) == header
    assert found["s"] == "2.00"
    assert 0.5 <= float(found["cpu_time"]) < 5
    assert float(found["max_rss"]) > 110
    assert found["max_uss"] == "NA"


def test_other_programs_of_a_shell_command_are_not_concerned(server, tmp_path):
    command = f"{server.shell_prefix} echo one | cat && python3 -c 'print(2)'"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "one\n2\n"
