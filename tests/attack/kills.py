"""Seeded kills of running workflows: each run is struck at some moment, then run again.

After the second run the results must be those of an undisturbed run, byte for byte; no request was
answered twice; no file is half-written or left over; no process is left; and the key of the model
server is in no file, on no command line and not on the terminal:

    PYTHONPATH=scripts:tests python tests/attack/kills.py --count 60 --seed 0

A moment is a number of files (cached responses and results) that exist when the run is struck.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from attack.leaked_keys import GATEWAY_KEY_FILE, KEY, KEY_VARIABLE, leaks
from processes import PATIENCE_S, command_of, descendants, is_alive, kill_all, processes_in
from slurm_runs import annotations
from workflow_runs import REPOSITORY, CountingServer, Workdir

from cuesheet.files import _TEMPORARY as TEMPORARY_NAME
from cuesheet.serving.cache_cli import damaged
from cuesheet.serving.gateway import MAX_CACHE_FAILURES

CONCURRENCY = 4
TMPFS_BYTES = {"cache": 40_000, "results": 150_000}


class KeyedWorkdir(Workdir):
    """A working directory whose runs have the model server's key in their environment."""

    def environment(self) -> dict[str, str]:
        return {**super().environment(), KEY_VARIABLE: KEY}


@dataclass
class Struck:
    """A run that is to be struck."""

    work: Workdir
    run: subprocess.Popen

    def processes(self) -> list[psutil.Process]:
        return processes_in(self.work.path)

    def named(self, *words: str, without: str = "\0") -> list[psutil.Process]:
        """Return the processes whose command line has all of these words."""
        found = []
        for process in self.processes():
            command = " ".join(command_of(process))
            if all(word in command for word in words) and without not in command:
                found.append(process)
        return found

    def jobs(self) -> list[psutil.Process]:
        """Return the forks of the job server, in which the scripts of the jobs run."""
        servers = self.named("cuesheet.serving.job_server")
        forks = [child for server in servers for child in descendants(server)]
        return [fork for fork in forks if "job_server" in " ".join(command_of(fork))]


Victims = Callable[[Struck], list[psutil.Process]]


def _snakemake(struck: Struck) -> list[psutil.Process]:
    return [psutil.Process(struck.run.pid)]


@dataclass(frozen=True)
class Kind:
    """A kind of kill. `paid_twice`: requests that may be answered twice because of it."""

    victims: Victims = _snakemake
    number: signal.Signals = signal.SIGKILL
    group: bool = False  # the signal goes to the process group of Snakemake
    serve: str = "external"
    sharded: bool = False
    full_disk: str | None = None  # what is stored on a full disk: "cache" or "results"
    paid_twice: int = 0


KINDS: dict[str, Kind] = {
    "SIGKILL to Snakemake": Kind(),
    "SIGTERM to Snakemake": Kind(number=signal.SIGTERM),
    "SIGINT to Snakemake": Kind(number=signal.SIGINT),
    "SIGHUP to Snakemake": Kind(number=signal.SIGHUP),
    "SIGKILL to the group": Kind(group=True),
    "SIGINT to the group": Kind(number=signal.SIGINT, group=True),
    "SIGTERM to the group": Kind(number=signal.SIGTERM, group=True),
    "SIGHUP to the group": Kind(number=signal.SIGHUP, group=True),
    # Responses that it received and had not cached yet are lost.
    "SIGKILL to the supervisor": Kind(
        lambda struck: struck.named("cuesheet.serving.lifecycle"), paid_twice=CONCURRENCY
    ),
    "SIGTERM to the supervisor": Kind(
        lambda struck: struck.named("cuesheet.serving.lifecycle"), signal.SIGTERM
    ),
    "SIGKILL to the model server": Kind(
        lambda struck: struck.named("-m demo_vlm", without="process_guard"), serve="demo"
    ),
    "SIGKILL to the process guard": Kind(
        lambda struck: struck.named("process_guard"), serve="demo"
    ),
    "SIGKILL to a job": Kind(Struck.jobs),
    "SIGKILL to the job server": Kind(
        lambda struck: struck.named("cuesheet.serving.job_server")[:1]
    ),
    "SIGKILL to Snakemake, in shards": Kind(sharded=True),
    "SIGTERM to the job of a shard": Kind(
        lambda struck: struck.named("annotate_shard.py", without="--allowed-rules"),
        signal.SIGTERM,
        sharded=True,
    ),
    "SIGKILL to the run in a shard": Kind(
        lambda struck: struck.named("--allowed-rules")[:1], sharded=True
    ),
    "full disk of the cache": Kind(
        full_disk="cache", paid_twice=MAX_CACHE_FAILURES + 2 * CONCURRENCY
    ),
    "full disk of the results": Kind(full_disk="results"),
}
# What the suite runs: one of each kind that differs in who ends whom.
SMALL = (
    "SIGTERM to Snakemake",
    "SIGINT to the group",
    "SIGKILL to the supervisor",
    "SIGKILL to the process guard",
    "SIGKILL to a job",
    "SIGKILL to Snakemake, in shards",
    "full disk of the cache",
)


@dataclass
class Result:
    """A round; `problems` are violations, empty if all is as it must be."""

    number: int
    kind: str
    moment: int
    outcome: str = ""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


class Harness:
    """Strikes runs of one dataset. `episodes` and `targets` bound how long a run takes."""

    def __init__(
        self, folder: Path, dataset: Path, upstream: str, *, episodes: str, targets: tuple[str, ...]
    ) -> None:
        self._folder = folder
        self._dataset = dataset
        self._upstream = upstream
        self._episodes = episodes
        self._targets = targets
        self._clean: dict[str, tuple[dict[str, object], int]] = {}

    def configure(self, work: Workdir, kind: Kind, server: CountingServer) -> None:
        vlm: dict[str, object] = {"serve": kind.serve, "concurrency": CONCURRENCY}
        if kind.serve == "external":
            vlm |= {"model": "cuesheet-demo-1", "base_urls": [server.base_url]}
            vlm |= {"api_key_env": KEY_VARIABLE, "timeout_s": 30}
        shards = {"shards": "always", "episodes_per_shard": 1} if kind.sharded else {}
        work.configure(dataset=str(self._dataset), episodes=self._episodes, vlm=vlm, cluster=shards)

    def clean(self, kind: Kind) -> tuple[dict[str, object], int]:
        """Return the results of an undisturbed run, and its number of files."""
        if kind.serve not in self._clean:
            work = KeyedWorkdir(self._folder / f"clean-{kind.serve}")
            with _counting(self._upstream) as server:
                self.configure(work, Kind(serve=kind.serve), server)
                work.run(*self._targets, "media")
            self._clean[kind.serve] = annotations(work, self._dataset.name), count_files(work)
        return self._clean[kind.serve]

    def round(self, number: int, name: str, draw: random.Random) -> Result:
        """Strike a run, run it again, and check everything."""
        kind = KINDS[name]
        expected, files = self.clean(kind)
        result = Result(number, name, draw.randrange(int(0.9 * files) + 1))
        work = KeyedWorkdir(self._folder / f"round-{number}")
        (work.path).mkdir()
        began = time.monotonic()
        with contextlib.ExitStack() as ending, _counting(self._upstream) as server:
            ending.callback(shutil.rmtree, work.path, ignore_errors=True)
            ending.callback(lambda: kill_all(processes_in(work.path)))
            server.delay_s = 0.1
            self.configure(work, kind, server)
            disk = ending.enter_context(_small_disk(work, kind.full_disk))
            output = self._strike(work, kind, result, draw)
            result.problems += leaks(work.path, output)
            server.delay_s = 0.0
            disk()
            self._rerun(work, kind, expected, server, result)
        result.seconds = time.monotonic() - began
        return result

    def _strike(self, work: Workdir, kind: Kind, result: Result, draw: random.Random) -> str:
        log = work.path / "terminal.txt"
        run = start_run(work, log, *self._targets)
        struck = Struck(work, run)
        if kind.full_disk:
            result.outcome = "disk full"
        else:
            result.outcome = self._send(struck, kind, result, draw)
        try:
            run.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            result.problems.append(f"the run did not end within {PATIENCE_S:.0f} s")
            kill_all([psutil.Process(run.pid)])
        result.outcome += f", exit {'0' if run.returncode == 0 else 'not 0'}"
        deadline = time.monotonic() + PATIENCE_S
        while processes := processes_in(work.path):
            if time.monotonic() > deadline:
                left = [" ".join(command_of(process))[:150] for process in processes]
                result.problems.append(f"processes are left: {left}")
                break
            time.sleep(0.1)
        output = log.read_text()
        log.unlink()
        if "Traceback (most recent call last)" in output:
            result.problems.append(f"a traceback on the terminal: {output[-1500:]}")
        return output

    def _send(self, struck: Struck, kind: Kind, result: Result, draw: random.Random) -> str:
        """Wait for the moment and strike; return what happened."""
        if result.moment < 3:
            time.sleep(draw.uniform(0.2, 2.0))
        while struck.run.poll() is None and count_files(struck.work) < result.moment:
            time.sleep(0.02)
        while struck.run.poll() is None:
            victims = kind.victims(struck)
            if victims:
                for process in struck.processes():
                    words = " ".join(command_of(process))
                    if any(key in words for key in (KEY, _gateway_key(struck.work))):
                        result.problems.append("a key is on a command line")
                if kind.group:
                    os.killpg(struck.run.pid, kind.number)
                else:
                    victim = draw.choice(victims)
                    if not is_alive(victim):
                        continue
                    with contextlib.suppress(psutil.NoSuchProcess):
                        victim.send_signal(kind.number)
                return "struck"
            time.sleep(0.02)
        return "ended before"

    def _rerun(
        self,
        work: Workdir,
        kind: Kind,
        expected: dict[str, object],
        server: CountingServer,
        result: Result,
    ) -> None:
        for lock in (work.path / ".snakemake/locks").glob("*"):  # as --unlock does, but faster
            lock.unlink()
        done = work.run(*self._targets, check=False)
        result.problems += leaks(work.path, done.output)
        if done.returncode:
            result.problems.append(f"the second run failed: {done.output[-1500:]}")
            return
        found = annotations(work, self._dataset.name)
        if kind.full_disk:  # stage files tell that responses were not cached
            found, expected = (
                {name: value for name, value in one.items() if isinstance(value, bytes)}
                for one in (found, expected)
            )
        if not any(name.startswith("clips/") for name in found):  # not requested
            expected = {n: value for n, value in expected.items() if not n.startswith("clips/")}
        different = [n for n in sorted({*found, *expected}) if found.get(n) != expected.get(n)]
        if different:
            result.problems.append(f"differs from an undisturbed run: {different[:5]}")
        answered = Counter(json.dumps(body, sort_keys=True) for body in server.answered)
        twice = sum(count - 1 for count in answered.values())
        if twice > kind.paid_twice:
            result.problems.append(f"{twice} requests were answered twice")
        result.problems += half_written(work)


def half_written(work: Workdir) -> list[str]:
    """Return what is damaged or left over after a run that finished."""
    problems = [f"damaged: {path}: {why}" for path, why in damaged(work.path / ".cache/vlm")]
    for path in work.path.rglob("*"):
        relative = path.relative_to(work.path)
        if TEMPORARY_NAME.fullmatch(path.name) or path.name.endswith(".partial"):
            problems.append(f"left over: {relative}")
        if path.suffix == ".json" and path.is_file() and ".snakemake" not in relative.parts:
            try:
                json.loads(path.read_bytes())
            except ValueError as error:
                problems.append(f"half-written: {relative}: {error}")
    if claims := list((work.path / ".cache/vlm/claims").glob("*")):
        problems.append(f"claims are left: {len(claims)}")
    return problems


def start_run(work: Workdir, log: Path, *arguments: str) -> subprocess.Popen:
    """Start the workflow in a session of its own, with its terminal in the file `log`."""
    with log.open("w") as terminal:
        return subprocess.Popen(
            work.command(*arguments),
            env=work.environment(),
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )


def count_files(work: Workdir) -> int:
    """Return the number of cached responses and finished files."""
    cache = sum(1 for _ in (work.path / ".cache/vlm").glob("??/*.json"))
    return cache + sum(1 for _ in (work.path / "results").glob("*/*/*.*"))


def _gateway_key(work: Workdir) -> str:
    for path in work.path.glob(GATEWAY_KEY_FILE):
        with contextlib.suppress(OSError, ValueError):
            if key := json.loads(path.read_bytes()).get("api_key"):
                return key
    return KEY


@contextlib.contextmanager
def _counting(upstream: str) -> Iterator[CountingServer]:
    server = CountingServer(upstream)
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def _small_disk(work: Workdir, what: str | None) -> Iterator[Callable[[], None]]:
    """Mount a small disk for the cache or the results; yields what makes it large."""
    if what is None:
        yield lambda: None
        return
    place = work.path / (".cache/vlm" if what == "cache" else "results")
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES[what]}", "tmpfs", str(place)]
    subprocess.run(mount, check=True)
    try:
        yield (
            lambda: (
                subprocess.run(["mount", "-o", "remount,size=200M", str(place)], check=True)
                and None
            )
        )
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def can_mount() -> bool:
    """Return whether small disks can be mounted here (as root, on Linux)."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        try:
            mounted = subprocess.run(command, capture_output=True).returncode == 0
        except OSError:
            return False
        if mounted:
            subprocess.run(["umount", folder], check=True)
        return mounted


def run_kills(harness: Harness, names: list[str], seed: int, say: Callable[[str], None]) -> list:
    """Run one round per name, in order. Kinds that need a mount are skipped if there is none."""
    mounts = can_mount()
    results = []
    for number, name in enumerate(names):
        if KINDS[name].full_disk and not mounts:
            say(f"skipped, disks cannot be mounted here: {name}")
            continue
        result = harness.round(number, name, random.Random(f"{seed}/{number}"))
        results.append(result)
        say(
            f"{number:3} {name}: moment {result.moment}, {result.outcome}, "
            f"{result.seconds:.0f} s, {'; '.join(result.problems) or 'right'}"
        )
    return results


@contextlib.contextmanager
def demo_server(folder: Path) -> Iterator[str]:
    """Run the demo model; yields its address."""
    port_file = folder / "port"
    process = subprocess.Popen(
        [sys.executable, "-m", "demo_vlm", "--port", "0", "--port-file", str(port_file)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "scripts")},
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not port_file.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port_file.read_text().strip()}"
    finally:
        process.terminate()
        process.wait(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=sorted(KINDS), help="only this kind")
    arguments = parser.parse_args()
    kinds = [arguments.kind] if arguments.kind else list(KINDS)
    names = [kinds[number % len(kinds)] for number in range(arguments.count)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with demo_server(folder) as upstream:
            harness = Harness(
                folder, REPOSITORY / "data/demo_v3", upstream, episodes="0-1", targets=("all",)
            )
            results = run_kills(harness, names, arguments.seed, lambda t: print(t, flush=True))
    table = collections.Counter(
        (r.kind, r.outcome, "WRONG" if r.problems else "right") for r in results
    )
    for (kind, outcome, verdict), count in sorted(table.items()):
        print(f"{kind:34} {outcome:24} {verdict:6} {count:3}")
    wrong = sum(bool(result.problems) for result in results)
    print(f"{len(results)} kills of {len({r.kind for r in results})} kinds, {wrong} wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
