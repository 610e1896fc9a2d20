"""Progress of a run, read from its files: `cuesheet status [DATASET ...] [--json]`.

It works during a run, after it, and after a run was killed, on every machine that can read the
working directory. It asks neither SLURM nor the run.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cuesheet.artifacts.failures import episode_failures, job_errors
from cuesheet.artifacts.finished import complete_episodes
from cuesheet.artifacts.layout import RESULTS, RUNS, VOCABULARY_JOB, Layout
from cuesheet.errors import CuesheetError
from cuesheet.files import read_json
from cuesheet.lease import STALE_AFTER_S
from cuesheet.serving.accounting import account_of, in_words, read_usages
from cuesheet.serving.lifecycle import OUTCOME_FILE
from cuesheet.text import as_ranges, counted, from_ranges

_STAGES = ("plan", "interjections", "vqa")
_SHOWN = 20
_DETAILED = ("running", "failed")  # states whose jobs are listed
STATES = ("done", "running", "failed", "waiting")


def status_of(results: Path, runs: Path, now: float) -> dict[str, Any]:
    """Return the state of one dataset's newest run. `results`: the dataset's result folder.

    Raises CuesheetError if no run contained the dataset.
    """
    run = _newest_run(results, runs)
    complete = complete_episodes(results, run["stages"], validated=run.get("validated", True))
    chosen = [index for episodes in run["shards"].values() for index in episodes]
    drafting = _drafting(results, run, now)
    failures = episode_failures(results, [index for index in chosen if index not in complete])
    shards = {
        name: _shard(results, name, episodes, complete, run, now)
        for name, episodes in run["shards"].items()
    }
    episodes = Counter[str]()
    for name, indices in run["shards"].items():
        for index in indices:
            episodes[_episode(index, complete, failures, shards[name]["state"])] += 1
    completed = _completed_since(results, complete & set(chosen), run["started_at"])
    account = account_of(read_usages(runs), [results.name], now)
    left = episodes["running"] + episodes["waiting"]
    is_active = episodes["running"] > 0 and completed > 0
    return {
        "format": 1,
        "dataset": results.name,
        "run": run["run"],
        "started_at": run["started_at"],
        **_run_state(results, run, [*shards.values(), *filter(None, [drafting])], now),
        "episodes": {"total": len(chosen), **{state: episodes[state] for state in STATES}},
        "drafting": drafting,
        "shards": shards if run["sharded"] else None,
        "failed": {str(index): failure["error"] for index, failure in failures.items()},
        "eta_s": round(left * (now - run["started_at"]) / completed) if is_active else None,
        "video_speed": _video_speed(results, complete, account.wall_s),
        "usage": account.as_json(),
        "usage_text": account.as_text(),
    }


def _newest_run(results: Path, runs: Path) -> dict[str, Any]:
    found = []
    if record := read_json(Layout(results).shard_run):
        shards = {name: from_ranges(ranges) for name, ranges in record["shards"].items()}
        found.append({**record, "shards": shards, "sharded": True})
    for path in sorted(runs.glob("*/config.json"), reverse=True):
        config = read_json(path)
        if config.get("shard") is None and results.name in config.get("totals", {}):
            totals = config["totals"][results.name]
            # What the targets of the run needed; everything if that was no episode.
            jobs = totals.get("jobs") or dict.fromkeys(totals["stages"], totals)
            episodes = {int(name) for stage in jobs.values() for name in stage["episodes"]}
            found.append(
                {
                    "run": path.parent.name,
                    "started_at": path.stat().st_mtime,
                    "shards": {"": sorted(episodes)},
                    "stages": [stage for stage in jobs if stage in _STAGES],
                    "validated": "validation" in jobs,
                    "usage": path.with_name("usage.json"),
                    "outcome": path.with_name(OUTCOME_FILE),
                    "sharded": False,
                }
            )
            break
    if not found:
        names = _datasets_of_runs(runs)
        hint = f"; its runs contained {', '.join(names)}" if names else ""
        raise CuesheetError(f"{results}: no run in this folder contained {results.name}{hint}")
    return max(found, key=lambda run: run["started_at"])


def _run_state(
    results: Path, run: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]], now: float
) -> dict[str, str]:
    """Return the state of a run ("running", "finished", "failed", "stopped") and its causes.

    A stopped run was interrupted or killed.
    """
    if run["sharded"]:
        states = {job["state"] for job in jobs}
        order = ("running", "failed", "waiting")
        state = next((one for one in order if one in states), "finished")
        return {"state": "stopped" if state == "waiting" else state, "error": ""}
    if not run["outcome"].exists():
        return {"state": "running" if _is_alive(run, now) else "stopped", "error": ""}
    outcome = read_json(run["outcome"])
    if outcome.get("finished"):
        return {"state": "finished", "error": ""}
    errors = job_errors(results, run["started_at"])
    causes = [outcome.get("error") or "", *(f"{rule}: {cause}" for rule, cause in errors.items())]
    error = "; ".join(filter(None, causes))
    return {"state": "failed" if error else "stopped", "error": error}


def _is_alive(run: Mapping[str, Any], now: float) -> bool:
    return _age_s(run["usage"], now) < STALE_AFTER_S and not _ended(run["usage"])


def _shard(
    results: Path,
    name: str,
    episodes: Sequence[int],
    complete: set[int],
    run: Mapping[str, Any],
    now: float,
) -> dict[str, Any]:
    done = sum(index in complete for index in episodes)
    shard = {"episodes": as_ranges(episodes), "total": len(episodes), "done": done}
    if not run["sharded"]:
        alive = _is_alive(run, now)
        state = "done" if done == len(episodes) else "running" if alive else "waiting"
        return {**shard, "state": state}
    layout = Layout(results)
    job = read_json(layout.shard_state(name))
    if job.get("run") != run["run"]:
        job = {}
    state = "waiting"
    if layout.shard_marker(name).exists():
        state = "done"
    elif job.get("state") in ("running", "ending"):
        age_s = _age_s(layout.shard_lease(name), now)
        state = "running" if age_s < STALE_AFTER_S else "failed"
    elif job.get("state") == "failed":
        state = "failed"
    details = {
        key: job.get(key) for key in ("job_id", "host", "gpus", "log", "started_at", "error")
    }
    return {**shard, "state": state, **details}


def _drafting(results: Path, run: Mapping[str, Any], now: float) -> dict[str, Any] | None:
    """Return the state of the job that drafts labels before the shards start; None without one."""
    episodes = from_ranges(run.get("drafted", []))
    if not episodes:
        return None
    layout = Layout(results)
    done = {index for index in episodes if layout.vocabulary_draft(index).is_file()}
    return _shard(results, VOCABULARY_JOB, episodes, done, run, now)


def _episode(index: int, complete: set[int], failures: Mapping[int, Any], shard_state: str) -> str:
    if index in complete:
        return "done"
    if index in failures:
        return "failed"
    return "running" if shard_state == "running" else "waiting"


def _completed_since(results: Path, complete: set[int], since: float) -> int:
    files = (Layout(results).validation(index) for index in complete)
    return sum(_age_s(path, since) <= 0 for path in files)


def _video_speed(results: Path, complete: set[int], wall_s: float) -> float | None:
    """Return the seconds of video annotated per second of job time, over all runs so far."""
    index = Layout(results).index
    if not wall_s or not complete or not index.exists():
        return None
    import pyarrow.parquet as pq

    table = pq.read_table(index, columns=["episode_index", "length", "fps"]).to_pydict()
    video_s = sum(
        length / fps
        for episode, length, fps in zip(*table.values(), strict=True)
        if episode in complete
    )
    return round(video_s / wall_s, 2)


def _age_s(path: Path, now: float) -> float:
    try:
        return now - path.stat().st_mtime
    except OSError:
        return float("inf")


def _ended(usage: Path) -> bool:
    return bool(read_json(usage).get("ended", False))


def as_text(status: Mapping[str, Any], now: float) -> str:
    """Return the status as text."""
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(status["started_at"]))
    error = f": {status['error']}" if status["error"] else ""
    lines = [f"{status['dataset']}, run of {since}: {status['state']}{error}"]
    lines.append(f"  Episodes: {_counts(status['episodes'])} of {status['episodes']['total']}")
    shards = status["shards"] or {}
    if shards:
        counts = Counter(shard["state"] for shard in shards.values())
        lines.append(f"  Shards:   {_counts(counts)} of {len(shards)}")
    if drafting := status["drafting"]:
        details = f": {_shard_text(drafting, now)}" if drafting["state"] in _DETAILED else ""
        lines.insert(-1, f"  Labels:   {drafting['state']}{details}")
    usage = status["usage"]
    speed = f"{counted(usage['calls'], 'request')} so far"
    if status["state"] == "running":
        speed = f"{usage['calls_per_s']:.1f} requests/s now, {speed}"
    if status["video_speed"]:
        speed += f"; {status['video_speed']:g} minutes of video per minute of job time"
    lines.append(f"  Speed:    {speed}")
    if status["eta_s"] is not None:
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(now + status["eta_s"]))
        lines.append(f"  End:      in about {in_words(status['eta_s'])} ({at})")
    lines.append(f"  Used:     {status['usage_text']}")
    for state in _DETAILED:
        listed = [(name, shard) for name, shard in shards.items() if shard["state"] == state]
        for name, shard in listed[:_SHOWN]:
            lines.append(f"  {state} {name}: {_shard_text(shard, now)}")
        if len(listed) > _SHOWN:
            lines.append(f"  and {len(listed) - _SHOWN} more {state}")
    failed = list(status["failed"].items())
    lines += [f"  failed episode {index}: {error}" for index, error in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        lines.append(f"  and {counted(len(failed) - _SHOWN, 'more episode')} failed")
    return "\n".join(lines) + "\n"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts.get(state, 0)} {state}" for state in STATES)


def _shard_text(shard: Mapping[str, Any], now: float) -> str:
    job = f"job {shard['job_id']}" if shard["job_id"] else "a job"
    gpus = f", GPU {shard['gpus']}" if shard["gpus"] else ""
    text = f"{shard['done']}/{shard['total']} (episodes {shard['episodes']}), {job} on "
    text += f"{shard['host']}{gpus}, {in_words(now - shard['started_at'])}"
    if shard["error"]:
        text += f": {shard['error']}"
    return f"{text}; log {shard['log']}"


def _results_of(dataset: str) -> Path:
    """Return the result folder of a dataset, which is given by name or by its result folder."""
    return Path(dataset) if len(Path(dataset).parts) > 1 else RESULTS / dataset


def _datasets_of_runs(runs: Path) -> list[str]:
    """Return the names of all datasets that a run of this folder contained."""
    names = {path.parent.parent.name for path in RESULTS.glob("*/shards/run.json")}
    for path in runs.glob("*/config.json"):
        names |= (read_json(path).get("totals") or {}).keys()
    return sorted(names)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="cuesheet status", description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "datasets",
        nargs="*",
        help="names of datasets, or their results folders (default: all datasets)",
    )
    parser.add_argument("--json", action="store_true", help="print all values as JSON")
    options = parser.parse_args(arguments)
    now = time.time()
    names = options.datasets or _datasets_of_runs(RUNS)
    if not names:
        raise CuesheetError(
            "no run was started in this folder; change to the working directory of the run"
        )
    found = [status_of(_results_of(name), RUNS, now) for name in names]
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(as_text(status, now) for status in found), end="")
