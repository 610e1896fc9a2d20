"""Snakemake logger plugin of Cuesheet: progress per rule, and one line per failure.

Named in the profiles (`logger: cuesheet`). It also receives errors of the configuration, the
command line and the targets, with `--quiet all` and before the rules are read too. Messages of the
workflow itself carry the attribute `cuesheet` (see `tell` in rules/concurrency.smk).

Dry runs, and runs with --verbose, --printshellcmds or --debug-dag, print what Snakemake prints.
"""

import logging
import os
import sys
import threading
from typing import Any

from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_cuesheet.errors import one_line
from snakemake_logger_plugin_cuesheet.jobs import Jobs
from snakemake_logger_plugin_cuesheet.terminal import ProgressLine

# Messages without an event that repeat what other lines say, or that concern Snakemake only.
_REDUNDANT = (
    "At least one job did not complete successfully",
    "Exiting because a job execution failed",
    "Job stats:",
    "Will exit after finishing",
    "Shutting down, this might take some time",
    "Removing output files of failed job",
    "Building DAG of jobs",
    "Using shell:",
    "Select jobs to execute",
    "Execute ",
    "Complete log(s):",
    "Elapsed time:",
    "Assuming unrestricted shared",
    "host:",
    "Updating checkpoint dependencies",
    "Keeping output",
    "Restored previous version",
    "Cannot restore ",  # a failed job that had no earlier output
    "Backing up",
    "Config file ",
    "Failed to setup log file",
    "Conda environments: ",
    "Singularity containers: ",
    "Group jobs: ",
)


class LogHandler(LogHandlerBase):
    """Prints what a person needs to see of a run."""

    def __post_init__(self) -> None:
        settings = self.common_settings
        quiet = set(settings.quiet or ())
        self._is_silent = Quietness.ALL in quiet
        self._stream = sys.stdout if settings.stdout else sys.stderr
        self._lock = threading.RLock()
        self._jobs = Jobs()
        wants_all = settings.verbose or settings.printshellcmds or settings.debug_dag
        self._snakemake = None
        if settings.dryrun or wants_all:
            self._snakemake = _snakemake_handler(settings, self._stream)
        self._progress = ProgressLine(self._stream, self._lock)

    @property
    def writes_to_stream(self) -> bool:
        return True

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return True

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._emit(record)
        except BrokenPipeError:
            # The output is closed (for example by `head`); the run continues.
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
        except Exception:
            self.handleError(record)

    def _emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        if hasattr(record, "cuesheet"):
            self._write(record.getMessage())
        elif event == LogEvent.ERROR or (record.levelno >= logging.ERROR and event is None):
            self._error(record)
        elif self._snakemake is not None:
            if self._snakemake.filter(record):
                self._snakemake.emit(record)
            if event == LogEvent.JOB_INFO or event in (LogEvent.JOB_ERROR, LogEvent.GROUP_ERROR):
                self._job_event(event, record)  # the cause of a failure is always printed
        elif event is None:
            self._message(record)
        else:
            self._job_event(event, record)

    def _job_event(self, event: Any, record: Any) -> None:
        """Handle a record of Snakemake, whose attributes depend on the event."""
        if event == LogEvent.RUN_INFO:
            self._status(self._jobs.planned(record.stats))
            self._progress.start()
        elif event == LogEvent.JOB_INFO:
            self._jobs.started(record.jobid, record.rule_name, record.wildcards, record.log)
        elif event == LogEvent.JOB_FINISHED:
            for line in self._jobs.notices(record.job_id):
                self._write(f"Cuesheet: {line}")
            self._status(self._jobs.finished(record.job_id))
        elif event == LogEvent.JOB_ERROR:
            self._failure(record.jobid, record.rule_name, record.log, record.rule_msg)
        elif event == LogEvent.GROUP_ERROR:
            for job in record.job_error_info:
                self._failure(job["jobid"], job["rule_name"], job["log"], job["rule_msg"])

    def _failure(self, jobid: int, rule: str, logs: list[str], message: str | None) -> None:
        for line in self._jobs.failed(jobid, rule, logs, message):
            self._write(f"Cuesheet: {line}")

    def _error(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "CalledProcessError" in text or text.startswith(_REDUNDANT):
            return  # about a failed job, which JOB_ERROR reports
        if self._jobs.failures and "At least one job did not complete successfully" in text:
            return
        line = one_line(getattr(record, "exception", None), text)
        if line:
            self._write(f"Cuesheet: {line}")

    def _message(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("Terminating processes on user request"):
            self._write("Cuesheet: interrupted; ending the running jobs")
            return
        if self._is_silent or not text or text == "None" or text.startswith(_REDUNDANT):
            return
        if hasattr(record, "quietness"):
            return
        if text.startswith("Nothing to be done"):
            text = "Cuesheet: Nothing to be done: all requested files are up to date"
        self._write(text)

    def _status(self, line: str | None) -> None:
        if line and not self._is_silent:
            self._write(f"Cuesheet: {line}")

    def _write(self, text: str) -> None:
        with self._lock:
            self._progress.clear()
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Print how often repeated causes occurred. Snakemake calls this when it ends."""
        self._progress.stop()
        for line in self._jobs.repeated_causes():
            self._write(f"Cuesheet: {line}")
        super().close()


def _snakemake_handler(settings: Any, stream: Any) -> logging.Handler:
    """Return the handler that Snakemake uses without a plugin."""
    quiet = settings.quiet or ()
    return ColorizingTextHandler(
        nocolor=settings.nocolor,
        stream=stream,
        formatter=DefaultFormatter(quiet, settings.show_failed_logs),
        filter=DefaultFilter(
            quiet, settings.debug_dag, settings.verbose, settings.dryrun, settings.printshellcmds
        ),
    )
