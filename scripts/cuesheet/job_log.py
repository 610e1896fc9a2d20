"""A job's log file: everything the job prints, and the cause if it fails."""

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

from cuesheet.artifacts.failures import ERROR_PREFIX, INTERRUPTED
from cuesheet.artifacts.layout import benchmark_of, failure_record
from cuesheet.errors import CuesheetError, SurroundingsError
from cuesheet.files import write_json, write_text

# Environment variable with the file to which jobs that run in forks append what they used.
USAGE_VARIABLE = "CUESHEET_JOB_USAGE"

INTERRUPTED_STATUS = 130  # as a shell reports SIGINT


@contextmanager
def to_file(path: Path | str) -> Iterator[logging.Logger]:
    """Redirect stdout, stderr (also of child processes) and logging of this process to `path`.

    If the job fails, the log ends with the line `ERROR: ` and the cause: the message of a
    `CuesheetError`; other exceptions are preceded by their traceback. Then the process exits with
    status 1, and Snakemake (its logger plugin, see `snakemake_logger_plugin_cuesheet`) reports the
    cause. If the job failed because of its episode, it also writes failed/{rule}/…/{episode}.json,
    which the next success deletes. It is not an output of the rule, so it survives the failure. If
    the surroundings failed (server, key, disk, a bug of ours), there is no such file.
    """
    target = Path(path)
    record = failure_record(target)
    target.parent.mkdir(parents=True, exist_ok=True)
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
        if record is not None and record.exists():
            _delete_record(record)
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(INTERRUPTED_STATUS)
    except Exception as error:
        if not isinstance(error, CuesheetError):
            traceback.print_exc()
            error = SurroundingsError(f"{type(error).__name__}: {error}")
        print(f"{ERROR_PREFIX}{error}", file=sys.stderr, flush=True)
        if record is not None and not isinstance(error, SurroundingsError):
            _write_record(record, error, target)
        sys.exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
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


def _delete_record(record: Path) -> None:
    record.unlink(missing_ok=True)
    for folder in (record.parent, record.parent.parent):
        with suppress(OSError):  # other episodes of this rule, or other rules, have failed
            folder.rmdir()


def _write_record(record: Path, error: CuesheetError, log: Path) -> None:
    call = getattr(error, "call", None)  # the record of the request that it failed by
    content = {"error": str(error), "log": str(log)} | ({"call": call} if call else {})
    try:
        write_json(record, content)
    except FileNotFoundError:  # another episode's job has just removed the empty folder
        write_json(record, content)
