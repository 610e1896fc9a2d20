"""What a person sees of a run: lines of the workflow, jobs and errors, and the progress line."""

import io
import json
import logging
import threading
import time
from types import SimpleNamespace

import pytest
from processes import PATIENCE_S
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_cuesheet import LogHandler
from snakemake_logger_plugin_cuesheet.terminal import ProgressLine


def handler_of(**changes: object) -> LogHandler:
    settings = {"quiet": None, "stdout": True, "dryrun": False, "verbose": False}
    settings |= {"printshellcmds": False, "debug_dag": False, "nocolor": True}
    settings |= {"show_failed_logs": False, **changes}
    return LogHandler(SimpleNamespace(**settings), None)


def record(text: str = "", level: int = logging.INFO, **attributes: object) -> logging.LogRecord:
    made = logging.LogRecord("snakemake", level, "", 0, text, None, None)
    made.__dict__.update(attributes)
    return made


@pytest.fixture
def shown(capsys, monkeypatch):
    """Give records to a handler and return the lines that it prints."""
    monkeypatch.setenv("CUESHEET_PROGRESS", "off")

    def show(*records: logging.LogRecord, **changes: object) -> list[str]:
        handler = handler_of(**changes)
        for one in records:
            handler.emit(one)
        handler.close()
        return capsys.readouterr().out.splitlines()

    return show


PLANNED = record(event=LogEvent.RUN_INFO, stats={"annotate_plan": 1, "total": 1})
WILDCARDS = {"dataset": "demo", "episode": "000000"}
STARTED = record(
    event=LogEvent.JOB_INFO, jobid=1, rule_name="annotate_plan", wildcards=WILDCARDS, log=[]
)
FINISHED = record(event=LogEvent.JOB_FINISHED, job_id=1)


def test_a_rule_and_the_number_of_jobs_are_one_line_each(shown):
    expected = ["Cuesheet: 1 job: annotate_plan 1", "Cuesheet: annotate_plan: done"]
    assert shown(PLANNED, STARTED, FINISHED) == expected


def test_a_silent_run_shows_failures_and_the_workflow_s_own_lines_only(shown, tmp_path):
    log = tmp_path / "plan.log"
    log.write_text("ERROR: the model gave no usable segmentation\n")
    failed = {"jobid": 1, "rule_name": "annotate_plan", "log": [str(log)], "rule_msg": None}
    lines = shown(
        PLANNED,
        STARTED,
        record("a message of Snakemake"),
        record("Cuesheet: the server is ready", cuesheet=True),
        record(event=LogEvent.JOB_ERROR, **failed),
        quiet=[Quietness.ALL],
    )
    assert lines[0] == "Cuesheet: the server is ready"
    assert "demo episode 0: annotate_plan failed: the model gave no usable" in lines[1]
    assert not any("message of Snakemake" in line for line in lines)


def test_every_job_of_a_failed_group_is_named(shown, tmp_path):
    jobs = []
    for number, cause in ((1, "the video is cut off"), (2, "no model answers")):
        log = tmp_path / f"{number}.log"
        log.write_text(f"ERROR: {cause}\n")
        jobs.append({"jobid": number, "rule_name": "annotate_plan", "log": [str(log)]})
    info = [{**job, "rule_msg": None} for job in jobs]
    text = "\n".join(shown(record(event=LogEvent.GROUP_ERROR, job_error_info=info)))
    assert "the video is cut off" in text
    assert "no model answers" in text


def test_what_other_lines_say_already_is_not_repeated(shown):
    redundant = ["Building DAG of jobs...", "Complete log(s): x.log", "Select jobs to execute..."]
    redundant.append("Cannot restore results/demo_v3/plan/000001.json: no backup found.")
    error = record("Exiting because a job execution failed.", logging.ERROR)
    assert shown(*map(record, redundant), error) == []


def test_a_run_without_work_and_an_interrupted_one_say_so(shown):
    lines = shown(
        record("Nothing to be done (all requested files are present and up to date)."),
        record("Terminating processes on user request, this might take some time."),
    )
    assert lines == [
        "Cuesheet: Nothing to be done: all requested files are up to date",
        "Cuesheet: interrupted; ending the running jobs",
    ]


def test_an_error_of_the_workflow_is_one_line(shown):
    text = 'WorkflowError in file "/w/common.smk", line 45:\nconfig: seed: found x'
    error = record(text, logging.ERROR, event=LogEvent.ERROR, exception="WorkflowError")
    assert shown(error) == ["Cuesheet: config: seed: found x"]


def test_a_dry_run_prints_what_snakemake_prints(shown, capsys):
    handler = handler_of(dryrun=True)
    handler.emit(record("Would remove temporary output"))
    handler.close()
    assert "Would remove temporary output" in capsys.readouterr().out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def progress(tmp_path, monkeypatch):
    """Write the line of a run's supervisor and return a function that changes it."""
    monkeypatch.setenv("CUESHEET_SERVER_FILE", json.dumps({"demo": str(tmp_path / "server.json")}))
    monkeypatch.setenv("CUESHEET_PROGRESS", "0.2")
    monkeypatch.setenv("TERM", "xterm")
    return (tmp_path / "progress.txt").write_text


def wait_for(text: str, stream: io.StringIO) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while text not in stream.getvalue():
        assert time.monotonic() < deadline, stream.getvalue()
        time.sleep(0.02)


def test_on_a_terminal_the_line_is_replaced_and_erased_at_the_end(progress):
    stream = Terminal()
    progress("10 requests")
    line = ProgressLine(stream, threading.RLock())
    line.start()
    wait_for("10 requests", stream)
    progress("20 requests")
    wait_for("20 requests", stream)
    line.stop()
    assert stream.getvalue().endswith("\r\x1b[K")
    assert "\n" not in stream.getvalue()


def test_in_a_file_every_state_is_a_line_and_the_last_one_is_written(progress):
    stream = io.StringIO()
    progress("10 requests\n")
    line = ProgressLine(stream, threading.RLock())
    line.start()
    wait_for("10 requests", stream)
    progress("all 30 requests\n")
    line.stop()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "10 requests"
    assert lines[-1] == "all 30 requests"
    assert len(lines) == len(set(lines))


def test_progress_can_be_switched_off(progress, monkeypatch):
    monkeypatch.setenv("CUESHEET_PROGRESS", "off")
    stream = Terminal()
    progress("10 requests")
    line = ProgressLine(stream, threading.RLock())
    line.start()
    line.stop()
    assert stream.getvalue() == ""
