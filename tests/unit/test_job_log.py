"""The failure record of a job, which a success removes."""

import subprocess
import sys

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from cuesheet import job_log
from cuesheet.errors import CuesheetError
with job_log.to_file(sys.argv[2]):
    if sys.argv[3] == "fail":
        raise CuesheetError("no drawer")
"""


def run(repository, log, outcome):
    command = [sys.executable, "-c", SCRIPT, str(repository / "scripts"), str(log), outcome]
    return subprocess.run(command, capture_output=True, text=True).returncode


def test_a_failure_is_recorded_until_the_job_succeeds_and_no_empty_folder_remains(
    repository, tmp_path
):
    logs = tmp_path / "logs" / "annotate_plan"
    failed = tmp_path / "failed"
    assert run(repository, logs / "000003.log", "fail") == 1
    assert run(repository, logs / "000004.log", "fail") == 1
    assert "no drawer" in (failed / "annotate_plan" / "000003.json").read_text()
    assert run(repository, logs / "000003.log", "pass") == 0
    assert [path.name for path in (failed / "annotate_plan").iterdir()] == ["000004.json"]
    assert run(repository, logs / "000004.log", "pass") == 0
    assert not failed.exists()
