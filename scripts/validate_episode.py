"""Validate the annotations of one episode before they are merged.

In: the episode's keyframes folder and its plan, interjections and VQA files (without stages that
are switched off). Out: the findings and the number of rows by style, as JSON and as text. The job
fails if there are errors; the report is then in the log.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from cuesheet import files, job_log
from cuesheet.artifacts.episode import read_episode
from cuesheet.artifacts.inspection import InspectionFile
from cuesheet.artifacts.stage_files import STAGES, ValidationFile, digest, read_stage_file
from cuesheet.assemble.validate import validate_episode
from cuesheet.errors import CuesheetError


def make_report(
    keyframes: Path,
    stage_paths: Mapping[str, Path],
    cameras: Collection[str],
    verdict: str | None = None,
    inspection: Path | None = None,
    leave_out: str = "off",
) -> ValidationFile:
    """Return the report on one episode. A file that cannot be read is an error of its stage.

    `verdict` comes from a person: good, bad or None. The merge leaves a bad episode without rows,
    and those that `leave_out` (off, failed or doubtful) names because of the file `inspection`.
    """
    episode = read_episode(keyframes, needs_images=False)
    digests = {stage: digest(path) or "" for stage, path in stage_paths.items()}
    stages = {}
    broken: list[tuple[str, str]] = []
    for stage, path in stage_paths.items():
        try:
            stages[stage] = read_stage_file(path, stage)
        except CuesheetError as error:
            broken.append((stage, str(error)))
    if not broken:
        report = validate_episode(episode, stages, cameras)
        report.stage_files = digests
        report.verdict = verdict
        if inspection is not None:
            _add_inspection(report, InspectionFile.read(inspection), leave_out)
        return report
    report = ValidationFile.empty(episode.episode_index)
    for stage, message in broken:
        report.error("stage_file", stage, message)
    return report


def _add_inspection(report: ValidationFile, inspection: InspectionFile, leave_out: str) -> None:
    report.inspection = inspection.verdict
    left_out = {"failed": ("failed",), "doubtful": ("failed", "doubtful")}.get(leave_out, ())
    report.left_out = inspection.verdict in left_out
    for code, where, message in inspection.findings():
        report.warn(code, where, message)


def write_report(report: ValidationFile, json_path: Path, text_path: Path) -> None:
    """Write both forms of a report.

    Raises:
        CuesheetError: the report has errors; nothing is written.
    """
    print(report.as_text())
    if report.errors:
        first = report.errors[0]
        more = f" (and {len(report.errors) - 1} more)" if len(report.errors) > 1 else ""
        raise CuesheetError(
            f"episode {report.episode_index}: {first.code} at {first.where}: "
            f"{first.message}{more}. All findings are in the log."
        )
    files.write_text(text_path, report.as_text())
    files.write_json(json_path, report.model_dump())


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]):
        paths = {stage: snakemake.input.get(stage) for stage in STAGES}
        report = make_report(
            Path(snakemake.input.keyframes),
            {stage: Path(path) for stage, path in paths.items() if path},
            list(snakemake.params.cameras),
            snakemake.params.verdict,
            Path(snakemake.input.inspection) if snakemake.input.inspection else None,
            snakemake.params.leave_out,
        )
        write_report(report, Path(snakemake.output.json), Path(snakemake.output.text))


if "snakemake" in globals():
    main(snakemake)
