"""What a run starts before its first job and stops after its last."""

import os
import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuesheet.app.estimate_text import short_text
from cuesheet.artifacts.layout import RUNS
from cuesheet.cluster.job import NOT_STARTED, OUTER_RUN_VARIABLE
from cuesheet.cluster.plan import ShardPlan
from cuesheet.cluster.report import report_unfinished, start_record
from cuesheet.errors import CuesheetError
from cuesheet.files import remove_temporary_folders, write_text
from cuesheet.serving import job_server, lifecycle
from cuesheet.serving.accounting import account_of, read_usages
from cuesheet.serving.claims import Claims
from cuesheet.text import counted
from cuesheet.vlm.run_environment import (
    SERVER_FILE_VARIABLE,
    SHARED_FOLDER_VARIABLE,
    publish,
    withdraw,
)
from cuesheet.workflow.estimate import Range, estimate_run
from cuesheet.workflow.request_images import image_counts, longest_grid
from cuesheet.workflow.run import Requested, Run
from cuesheet.workflow.run_dataset import RunDataset

STOP_TIMEOUT_S = 30


class Session:
    """The gateway, model server and job server of a run; with `shard_plans`, the record of a run.

    Jobs find the gateway by environment variables, which `start` sets in this process.
    """

    def __init__(
        self,
        run: Run,
        shard_plans: Mapping[str, ShardPlan] | None,
        tell: Callable[[str], None],
        progress_to_file: bool,
    ) -> None:
        """Prepare a session. `shard_plans` is None if jobs work on single episodes.

        `tell` prints a message on the terminal. `progress_to_file`: the supervisor writes its
        progress line next to server.json, for Snakemake's logger plugin, instead of printing it.
        """
        self._run = run
        self._tell = tell
        self._progress_to_file = progress_to_file
        self._shard_plans = shard_plans
        self._job_server: job_server.JobServer | None = None
        self._created_at = time.time()
        self._estimate: Range | None = None  # of the whole run, before it started
        self._estimating: threading.Thread | None = None

    def start(
        self,
        *,
        use_job_server: bool = True,
        asks_model: bool = True,
        requested: Requested | None = None,
    ) -> str | None:
        """Check the sources that changed, then start the servers and check the model server.

        Args:
            use_job_server: whether to start a job server.
            asks_model: whether a planned job asks the model; if not, its server is not checked.
                With shards, external servers are checked here and managed ones by the jobs.
            requested: what the targets of this run need, for the counts of progress; None: all
                episodes of the run.

        Returns the shell prefix that makes jobs use the job server; None if there is none. If
        anything fails, everything that was started is stopped: Snakemake does not call `onerror`
        after an exception in `onstart`.
        """
        try:
            prefix = self._start(use_job_server, asks_model, requested)
        except BaseException as error:
            self._stop_servers(finished=False, error=str(error) or type(error).__name__)
            if self._run.shard is not None and isinstance(error, CuesheetError):
                self._tell(f"{NOT_STARTED}{error}")  # the shard's job reads it from its log
            raise
        if self._run.shard is None:
            command = shlex.join(["snakemake", *sys.argv[1:]])
            for dataset in self._run.datasets.values():
                write_text(dataset.layout.command, f"{command}\n")
        return prefix

    def _start(
        self, use_job_server: bool, asks_model: bool, requested: Requested | None
    ) -> str | None:
        remove_temporary_folders()
        if self._run.shard is None:
            # Index and layout belong to the outer run, because shards run at the same time.
            for dataset in self._run.datasets.values():
                changed = dataset.refresh_index()
                dataset.refresh_signals_layout(self._run.config.signals, source_changed=changed)
        if self._shard_plans is not None:
            self._start_estimating()
            if asks_model:
                self._tell_coordinates(self._check_before_shards())
            os.environ[OUTER_RUN_VARIABLE] = start_record(self._shard_plans)
            return None
        settings = self._run.server_settings() | {"progress_to_file": self._progress_to_file}
        if requested is not None:
            settings["totals"] = self._run.totals(requested)
        settings["check"] = server_check_settings(self._run) if asks_model else None
        server_file = lifecycle.start(settings, RUNS)
        publish(SERVER_FILE_VARIABLE, self._run.results_root, str(server_file.resolve()))
        if use_job_server and job_server.usable():  # it starts during the check of the server
            self._job_server = job_server.JobServer(server_file.parent)
        self._start_estimating()  # during the check, when this process only waits
        root = ""
        if settings["check"]:
            root = lifecycle.wait_until_ready(server_file).get("model_root") or ""
        if asks_model and self._run.shard is None:
            self._tell_coordinates(root)
        if self._run.shared_folder is not None:
            publish(SHARED_FOLDER_VARIABLE, self._run.results_root, self._run.shared_folder)
        return self._job_server.shell_prefix if self._job_server else None

    def _check_before_shards(self) -> str:
        """Check an external server before a shard is submitted; return the model behind its name.

        Jobs of shards start managed servers, and check both kinds themselves.
        """
        settings = self._run.server_settings() | {"totals": {}, "ends_run": False}
        settings["check"] = server_check_settings(self._run)
        if settings["check"] is None or settings["serve"] != "external":
            return ""
        server_file = lifecycle.start(settings, RUNS)
        try:
            return lifecycle.wait_until_ready(server_file).get("model_root") or ""
        except lifecycle.ServerUnavailableError as error:
            raise CuesheetError(
                f"{error}. If only the jobs can reach it, set vlm.check to false"
            ) from None
        finally:
            lifecycle.stop(server_file, STOP_TIMEOUT_S)

    def _tell_coordinates(self, root: str) -> None:
        if notice := self._run.coordinates_notice(root):
            self._tell(f"Cuesheet: {notice}")

    def _start_estimating(self) -> None:
        if self._run.shard is None:
            self._estimating = threading.Thread(target=self._make_estimate, daemon=True)
            self._estimating.start()

    def _make_estimate(self) -> None:
        try:
            self._estimate = sum((e.total for e in estimate_run(self._run)), Range())
        except Exception:  # an estimate must never disturb a run; jobs report what is wrong
            self._estimate = None

    def stop(self, *, finished: bool) -> None:
        """Stop the servers. If the run is not finished, say how to continue."""
        self._stop_servers(finished=finished)
        if self._estimating is not None:
            self._estimating.join()
        if self._run.shard is not None:
            return
        if self._shard_plans is not None:
            report_unfinished(self._shard_plans, os.environ.get(OUTER_RUN_VARIABLE), self._tell)
        if not finished:
            self._tell(
                "Cuesheet: the run is not finished; the causes are above and in the logs. Run the "
                "same command again to continue: finished files and cached responses are reused."
            )

    def _stop_servers(self, *, finished: bool, error: str | None = None) -> None:
        if self._job_server is not None:
            self._job_server.stop()
            self._job_server = None
        withdraw(SHARED_FOLDER_VARIABLE, self._run.results_root)
        server_file = withdraw(SERVER_FILE_VARIABLE, self._run.results_root)
        if server_file:
            lifecycle.stop(Path(server_file), timeout_s=STOP_TIMEOUT_S)
            lifecycle.record_outcome(server_file, finished=finished, error=error)
            # Of a supervisor that was killed. A run with nothing left to do starts none.
            claims = Claims(Path(self._run.config.vlm.cache_dir))
            claims.remove_stale()
            claims.close()

    def print_summaries(self) -> None:
        """Print the summaries that this run wrote, its requests, and the time of its servers."""
        for dataset in self._run.datasets.values():
            path = dataset.layout.summary_text
            if path.is_file() and path.stat().st_mtime >= self._created_at:
                self._tell(_summary(dataset))
        if self._run.shard is None:
            now = time.time()
            usages = [use for use in read_usages(RUNS) if use["updated_at"] >= self._created_at]
            self._print_requests(usages)
            account = account_of(usages, self._run.datasets, now)
            if account.gpu_s:
                self._tell(f"Cuesheet: {account.short_text()}")

    def _print_requests(self, usages: Sequence[Mapping[str, Any]]) -> None:
        """Print what this run requested, and what was estimated before."""
        sent = Counter[str]()
        for use in usages:
            sent.update(use.get("sent") or {})
        if not sent["requests"]:
            self._tell("Cuesheet: this run sent no requests: all replies were in the cache")
            return
        text = (
            f"Cuesheet: this run sent {counted(sent['requests'], 'request')}: "
            f"{sent['prompt_tokens']:,} prompt tokens, {sent['completion_tokens']:,} reply tokens"
        )
        if self._estimate is not None:
            text += f" (estimated: {short_text(self._estimate)})"
        self._tell(text)


def server_check_settings(run: Run) -> dict[str, Any] | None:
    """Return what the check of the model server has to know; None if there is no check."""
    vlm = run.config.vlm
    if not vlm.check or vlm.serve in ("replay", "demo"):
        return None
    return {
        "image_counts": image_counts(run.config, longest_grid(run)),
        "sampling": vlm.sampling.model_dump(exclude_none=True),
        "image_format": vlm.images.format,
    }


def _summary(dataset: RunDataset) -> str:
    layout = dataset.layout
    text = layout.summary_text.read_text(encoding="utf-8").rstrip()
    if layout.report.is_file():
        text += f"\n  Report:            {layout.report} (open it in a browser)"
        if layout.review.is_dir():
            text += f"; to correct annotations: cuesheet review {layout.folder}"
    return f"{text}\n"
