"""A SLURM of one machine, with GPUs that are none: installed, started and stopped by one command.

    python tests/slurm_cluster.py start [--nodes 1] [--gpus 2] [--cpus 8] [--memory-mb 16000]
    python tests/slurm_cluster.py stop

For root on Debian or Ubuntu, without systemd. The daemons are the distribution's own. A "GPU" is a
device file that reads as /dev/null, so jobs are given distinct indices in CUDA_VISIBLE_DEVICES.
Memory limits are enforced by polling (no cgroups are needed), and there is no accounting database.
A machine that has a SLURM of its own is left alone.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
CONFIGURATION = Path("/etc/slurm")
MARK = "# Written by tests/slurm_cluster.py; `stop` removes it."
STATE = Path("/run/cuesheet-slurm")
FIRST_NODE_PORT = 17100
PATIENCE_S = 300.0
INSTALL_PATIENCE_S = 600.0


class NoClusterError(RuntimeError):
    """There can be no test cluster on this machine; says why."""


def install() -> None:
    """Install what is missing. Raises NoClusterError if that is not possible."""
    if all(map(_program, ("slurmctld", "slurmd", "munged", "sbatch"))):
        return
    if os.geteuid() != 0:
        raise NoClusterError("SLURM is not installed, and only root can install it")
    if not shutil.which("apt-get"):
        raise NoClusterError("SLURM is not installed, and there is no apt-get to install it with")
    install_it = ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES]
    for command in (["apt-get", "update"], install_it):
        done = subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_PATIENCE_S,
        )
        if done.returncode:
            raise NoClusterError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")


def start(nodes: int = 1, gpus: int = 2, cpus: int = 8, memory_mb: int = 16000) -> None:
    """Start the daemons and wait until every node takes jobs. `gpus`, `cpus`: of each node.

    Raises NoClusterError if the machine does not allow it.
    """
    if os.geteuid() != 0:
        raise NoClusterError("only root can start slurmctld, slurmd and munged")
    conf = CONFIGURATION / "slurm.conf"
    if conf.exists() and MARK not in conf.read_text():
        raise NoClusterError(f"this machine has a SLURM of its own ({conf})")
    install()
    stop()
    STATE.mkdir(parents=True)
    names = [socket.gethostname().split(".")[0]] if nodes == 1 else _node_names(nodes)
    (CONFIGURATION / "gres.conf").write_text(_gres_conf(gpus))
    conf.write_text(_slurm_conf(names, gpus, cpus, memory_mb))
    _start_munge()
    _start("slurmctld", [_program("slurmctld"), "-D", "-c"])
    _until(lambda: _answers("scontrol", "ping"), "slurmctld does not answer", "slurmctld")
    for name in names:
        (STATE / name).mkdir()
        # -N needs a slurmd built for several of them; a single one is called after the machine.
        several = ["-N", name] if nodes > 1 else []
        _start(f"slurmd-{name}", [_program("slurmd"), "-D", *several])
    _until(
        lambda: _idle_nodes() == len(names), "the nodes do not become idle", f"slurmd-{names[0]}"
    )


def stop() -> None:
    """End all jobs and daemons that `start` started, and remove their files. May be repeated."""
    pid_files = sorted(STATE.glob("*.pid"))
    if pid_files and _answers("scontrol", "ping"):
        subprocess.run(["scancel", "--user", "root"], capture_output=True, timeout=PATIENCE_S)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and _output("squeue", "--noheader"):
            time.sleep(0.2)
    # Nodes first: the controller notices that they are gone only when it asks them.
    for path in sorted(pid_files, key=lambda path: not path.name.startswith("slurmd")):
        _end(int(path.read_text()))
    shutil.rmtree(STATE, ignore_errors=True)
    for name in ("slurm.conf", "gres.conf"):
        path = CONFIGURATION / name
        if path.exists() and MARK in path.read_text():
            path.unlink()


def _node_names(nodes: int) -> list[str]:
    return [f"node{number:03d}" for number in range(nodes)]


def _gres_conf(gpus: int) -> str:
    files = []
    for number in range(gpus):
        device = Path(f"/dev/fakegpu{number}")
        if not device.exists():
            os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))
        files.append(str(device))
    lines = [MARK, "AutoDetect=off", *(f"Name=gpu File={file}" for file in files)]
    return "\n".join(lines) + "\n"


def _slurm_conf(names: list[str], gpus: int, cpus: int, memory_mb: int) -> str:
    host = socket.gethostname().split(".")[0]
    gres = f" Gres=gpu:{gpus}" if gpus else ""
    settings = {
        "ClusterName": "cuesheet",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmUser": "root",
        "SlurmctldPort": 16817,
        "SlurmdPort": 16818,
        "AuthType": "auth/munge",
        # A job that is put back starts again after seconds, not after two minutes.
        "AuthInfo": "cred_expire=5",
        "CryptoType": "crypto/munge",
        "MpiDefault": "none",
        # Neither cgroups nor cpusets: they are not there in most containers.
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "GresTypes": "gpu",
        "SlurmdParameters": "config_overrides",
        "JobAcctGatherType": "jobacct_gather/linux",
        "JobAcctGatherFrequency": "task=1",
        "JobAcctGatherParams": "OverMemoryKill",
        "ReturnToService": 2,
        "MinJobAge": 300,
        "KillWait": 5,
        "UnkillableStepTimeout": 60,
        "SchedulerParameters": "bf_interval=2,sched_interval=2,sched_min_interval=100000",
        "MaxJobCount": 200000,
        "MaxArraySize": 10001,
        "StateSaveLocation": STATE / "state",
        "SlurmdSpoolDir": STATE / "%n-spool",
        "SlurmctldPidFile": STATE / "slurmctld.daemon",
        "SlurmdPidFile": STATE / "%n.daemon",
        "SlurmctldLogFile": STATE / "slurmctld.log",
        "SlurmdLogFile": STATE / "%n.log",
    }
    lines = [MARK, *(f"{key}={value}" for key, value in settings.items())]
    for number, name in enumerate(names):
        port = f" NodeHostName={host} Port={FIRST_NODE_PORT + number}" if len(names) > 1 else ""
        lines.append(
            f"NodeName={name} NodeAddr=127.0.0.1{port} CPUs={cpus} RealMemory={memory_mb}{gres} "
            "State=UNKNOWN"
        )
    every = ",".join(names)
    lines.append(f"PartitionName=gpu Nodes={every} Default=YES MaxTime=INFINITE State=UP")
    lines.append(f"PartitionName=cpu Nodes={every} MaxTime=INFINITE State=UP")
    return "\n".join(lines) + "\n"


def _start_munge() -> None:
    """Start munged, unless it runs already. It rejects folders that others may write to."""
    if _answers("munge", "--no-input"):
        return
    for folder in ("/run/munge", "/var/lib/munge", "/var/log/munge"):
        Path(folder).mkdir(parents=True, exist_ok=True, mode=0o755)
        shutil.chown(folder, "munge", "munge")
    as_munge = ["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups"]
    _start("munged", [*as_munge, _program("munged"), "--foreground"])
    _until(lambda: _answers("munge", "--no-input"), "munged does not answer", "munged")


def _start(name: str, command: list[str]) -> None:
    with (STATE / f"{name}.out").open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
        )
    (STATE / f"{name}.pid").write_text(str(process.pid))


def _end(pid: int) -> None:
    """Terminate the process, and kill it if it does not end within ten seconds."""
    for number, patience_s in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if not _lives(pid):
                return
            time.sleep(0.05)


def _lives(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _program(name: str) -> str:
    """Path of a daemon; those of Debian are in sbin, which is not in everybody's PATH."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or ""


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def _answers(*command: str) -> bool:
    return _output(*command) is not None


def _idle_nodes() -> int:
    states = _output("sinfo", "--Node", "--noheader", "--partition=gpu", "--format=%T") or ""
    return states.split().count("idle")


def _until(holds: Callable[[], bool], otherwise: str, log: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            texts = [p.read_text(errors="replace")[-1500:] for p in STATE.glob(f"{log}*.[ol]*")]
            stop()
            raise NoClusterError(f"{otherwise} within {PATIENCE_S:g} s:\n" + "\n".join(texts))
        time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("start", help="install, if needed, and start")
    for name, default in (("nodes", 1), ("gpus", 2), ("cpus", 8), ("memory-mb", 16000)):
        starting.add_argument(f"--{name}", type=int, default=default, metavar="N")
    commands.add_parser("stop", help="end jobs and daemons, remove their files")
    options = parser.parse_args()
    if options.command == "stop":
        stop()
        return 0
    try:
        start(options.nodes, options.gpus, options.cpus, options.memory_mb)
    except NoClusterError as error:
        print(f"no test cluster: {error}", file=sys.stderr)
        return 1
    print(_output("sinfo", "--Node", "--format=%N %T %c CPUs %m MB %G"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
