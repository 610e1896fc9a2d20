"""A job's log file: everything the job prints, and the cause when it fails."""

import csv
import json
import logging
import os
import resource
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cuesheet.artifacts.layout import benchmark_of, failure_record
from cuesheet.errors import CuesheetError, SurroundingsError
from cuesheet.files import write_json, write_text

# Environment variable with the file to which jobs that run in forks append what they used.
USAGE_VARIABLE = "CUESHEET_JOB_USAGE"


@contextmanager
def to_file(path: Path | str) -> Iterator[logging.Logger]:
    """Send stdout, stderr (child processes included) and logging of this process to `path`.

    The last lines of a failed job name the cause: a `CuesheetError` as its message alone, anything
    else with its traceback. The same message is repeated on the terminal, then the process exits
    with 1. A job that failed because of its episode also leaves `failed/{rule}/{episode}.json`
    next to `logs/`, until it succeeds: no output of the rule, so it outlives the failure. Where the
    run's surroundings failed (server, key, disk, our own bug) there is no such file.
    """
    target = Path(path)
    marker = failure_record(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.fdopen(os.dup(2), "w", encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    with target.open("w", encoding="utf-8", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    try:
        yield logging.getLogger("cuesheet")
        if marker is not None and marker.exists():
            marker.unlink(missing_ok=True)
            for folder in (marker.parent, marker.parent.parent):
                with suppress(OSError):  # other episodes of this rule, or other rules, have failed
                    folder.rmdir()
    except Exception as error:
        if not isinstance(error, CuesheetError):
            traceback.print_exc()
            error = SurroundingsError(f"{type(error).__name__}: {error}")
        print(f"ERROR: {error}", file=sys.stderr, flush=True)
        if marker is not None and not isinstance(error, SurroundingsError):
            call = getattr(error, "call", None)  # the record of the call that it failed by
            failure = {"error": str(error), "log": str(target)}
            failure = {**failure, "call": call} if call else failure
            try:
                write_json(marker, failure)
            except FileNotFoundError:  # another episode's job has just removed the empty folder
                write_json(marker, failure)
        print(f"ERROR: {error}\n       log: {target}", file=terminal, flush=True)
        sys.exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        terminal.close()
        _record_usage(target)


def _record_usage(log: Path) -> None:
    """Append the CPU seconds and the peak memory of this process and its children."""
    path = os.environ.get(USAGE_VARIABLE)
    if path is None or "logs" not in log.parts:
        return
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    entry = {
        "benchmark": str(benchmark_of(log).resolve()),
        "cpu_s": sum(one.ru_utime + one.ru_stime for one in used),
        "max_rss_mb": max(one.ru_maxrss for one in used) / 1024,
    }
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def correct_benchmarks(usage: Path) -> None:
    """Write CPU time and memory of jobs, one JSON object per line of `usage`, to their benchmarks.

    Columns that are unknown for a fork become NA. Seconds are right already.
    """
    lines = usage.read_text(encoding="utf-8").splitlines() if usage.is_file() else []
    for job in map(json.loads, lines):
        path = Path(job["benchmark"])
        if not path.is_file():
            continue
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        for row in rows:
            known = {key: row[key] for key in ("s", "h:m:s")}
            known |= {"max_rss": f"{job['max_rss_mb']:.2f}", "cpu_time": f"{job['cpu_s']:.2f}"}
            load = 100 * job["cpu_s"] / max(float(row["s"]), 0.01)
            known["mean_load"] = f"{load:.2f}"
            row.update({key: known.get(key, "NA") for key in row})
        text = "\n".join("\t".join(row.values()) for row in [dict(zip(rows[0], rows[0])), *rows])  # noqa: B905
        write_text(path, text + "\n")
