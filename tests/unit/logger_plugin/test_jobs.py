"""Lines about the jobs of a run: one per finished rule, one per cause of failure."""

from pathlib import Path
from types import SimpleNamespace

from snakemake_logger_plugin_cuesheet.jobs import Jobs, cause_in


def _log(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.log"
    path.write_text(text)
    return str(path)


def _start(jobs: Jobs, rule: str, episodes: int, log: str | None = None) -> None:
    for index in range(episodes):
        wildcards = {"dataset": "demo", "episode": f"{index:06d}"}
        jobs.started(index, rule, wildcards, [log] if log else [])


def test_a_rule_is_reported_once_when_its_last_job_ends() -> None:
    jobs = Jobs()
    planned = jobs.planned({"annotate_plan": 3, "all": 1, "total": 4})
    _start(jobs, "annotate_plan", 3)
    lines = [jobs.finished(index) for index in range(3)]
    assert planned == "3 jobs: annotate_plan 3"
    assert lines == [None, None, "annotate_plan: 3 done"]


def test_warnings_of_the_index_are_notices_about_its_dataset(tmp_path) -> None:
    jobs = Jobs()
    text = "2026-11-26 12:00:00,123 WARNING cuesheet: episode 3 is left out\nWARNING: other\n"
    log = _log(tmp_path, "index_episodes", f"2026-11-26 12:00:00,1 INFO cuesheet: x\n{text}")
    jobs.started(0, "index_episodes", {"dataset": "demo"}, [log])
    jobs.started(1, "annotate_plan", {"dataset": "demo", "episode": "000000"}, [log])
    assert jobs.notices(0) == ["demo: episode 3 is left out"]
    assert jobs.notices(1) == []


def test_a_full_disk_is_named_if_it_kept_the_log_empty(tmp_path, monkeypatch) -> None:
    jobs = Jobs()
    jobs.planned({"extract_clip": 2, "total": 2})
    log = _log(tmp_path, "x", "")
    assert "no cause is recorded" in jobs.failed(0, "extract_clip", [log], None)[0]
    usage = SimpleNamespace(free=0)
    monkeypatch.setattr("snakemake_logger_plugin_cuesheet.jobs.shutil.disk_usage", lambda _: usage)
    assert "free space on the disk and run again" in jobs.failed(1, "extract_clip", [log], None)[0]


def test_a_failure_names_the_episode_the_cause_and_the_log(tmp_path) -> None:
    jobs = Jobs()
    jobs.planned({"extract_clip": 2, "total": 2})
    log = _log(tmp_path, "x", "working\nERROR: the video is cut off\n")
    wildcards = {"dataset": "demo", "camera": "front", "episode": "000007"}
    jobs.started(0, "extract_clip", wildcards, [log])
    lines = jobs.failed(0, "extract_clip", [log], None)
    assert lines == [
        f"demo episode 7, camera front: extract_clip failed: the video is cut off\n  log: {log}"
    ]


def test_a_cause_of_many_jobs_is_shown_once_with_their_number(tmp_path) -> None:
    jobs = Jobs()
    jobs.planned({"annotate_plan": 4, "total": 4})
    _start(jobs, "annotate_plan", 4)
    lines = []
    for index in range(4):
        text = f"ERROR: call 'rephrase' (demo/{index:06d}): port 9 does not answer\n"
        lines += jobs.failed(index, "annotate_plan", [_log(tmp_path, str(index), text)], None)
    assert len([line for line in lines if "does not answer" in line]) == 1
    assert lines[-1] == "annotate_plan: 0 of 4 done, 4 failed"
    (repeated,) = jobs.repeated_causes()
    assert repeated.startswith(
        "3 more jobs failed for the same reason: annotate_plan of demo episodes 1-3."
    )
    assert jobs.repeated_causes() == []


def test_different_causes_are_all_shown(tmp_path) -> None:
    jobs = Jobs()
    _start(jobs, "annotate_plan", 2)
    causes = ["the key is missing", "the model is unknown"]
    for index, cause in enumerate(causes):
        log = _log(tmp_path, str(index), f"ERROR: {cause}\n")
        assert cause in jobs.failed(index, "annotate_plan", [log], None)[0]
    assert jobs.repeated_causes() == []


def test_interrupted_jobs_are_not_failures_to_report(tmp_path) -> None:
    jobs = Jobs()
    _start(jobs, "annotate_plan", 1)
    for number, text in enumerate(("ERROR: interrupted\n", "Traceback ...\nKeyboardInterrupt\n")):
        log = _log(tmp_path, str(number), text)
        assert jobs.failed(number, "annotate_plan", [log], None) == []


def test_the_cause_of_a_log_without_one_is_its_last_line(tmp_path) -> None:
    assert cause_in(_log(tmp_path, "x", "one\n\n  Killed\n\n")) == "Killed"
    assert cause_in(_log(tmp_path, "y", "")) is None
    assert cause_in(str(tmp_path / "none.log")) is None
