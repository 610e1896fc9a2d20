"""Settings of the report and of the scores."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cuesheet.config.types import Expected, Section, null_is_none

ReferenceSetting = Annotated[
    str | dict[str, str] | None,
    Expected("a file or folder, names with files `{name: file}`, or null"),
    BeforeValidator(null_is_none),
]
Price = Annotated[float | None, Field(ge=0), BeforeValidator(null_is_none)]


class ReportConfig(Section):
    """The report, one HTML file per dataset: `results/{name}/report.html`."""

    max_timelines: int = Field(default=200, ge=1)
    """Maximum number of timelines in the report: episodes with warnings first, then an even
    selection of the others. The review page shows all episodes.
    """
    price_prompt: Price = None
    """Price per million prompt tokens; null: the report shows no cost."""
    price_completion: Price = None
    """Price per million completion tokens; null: the report shows no cost."""
    currency: str = "USD"
    """Currency of the prices."""


class EvaluateConfig(Section):
    """Scores against reference segments, for datasets that have some: `evaluation.txt`, `.json`
    and `.svg` (definitions: docs/evaluation.md)."""

    reference: ReferenceSetting = None
    """JSON, CSV or Parquet file of segments, the file of WGO-Bench, or the result folder of another
    run; with several datasets `{name: file}`.
    """
    baselines: list[Literal["uniform", "motion"]] = Field(default=["uniform", "motion"])
    """Baselines that are scored next to the run, with as many segments per episode: `uniform`
    (equally long) and `motion` (cut at the frames with the least motion).
    """
    fold: dict[str, Literal["previous", "next"]] = Field(default={})
    """Reference labels whose segments are merged into a neighbor before scoring, e.g. `{idle:
    previous, approach: next}`. A JSON reference can also contain this.
    """
    mapping: dict[str, str] = Field(default={})
    """New names for reference labels, e.g. `{grasp: pick, lift: pick}`; consecutive segments with
    the same new name are merged. A JSON reference can also contain this.
    """
    same_label_token_f1: float = Field(default=0.5, ge=0, le=1)
    """Minimum token F1 of labels that mean the same; their verbs and objects must agree too."""
    judge: bool = False
    """Ask the model whether labels mean the same (prompt `evaluate_judge`). Its verdict replaces
    the comparison of words.
    """
    ignore_boxes: list[str] = Field(default=[])
    """Names of reference boxes that are ignored, e.g. `[gripper]`."""
