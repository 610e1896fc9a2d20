"""Settings of the report and the scores."""

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

    max_timelines: int = Field(
        default=200,
        ge=1,
        description=(
            "Most episodes with a timeline in the report: those with warnings first, then an "
            "even selection. The review page shows all."
        ),
    )
    price_prompt: Price = Field(
        default=None, description="Price per million prompt tokens; null: no cost is shown."
    )
    price_completion: Price = Field(
        default=None, description="Price per million completion tokens; null: no cost is shown."
    )
    currency: str = Field(default="USD", description="Currency of the prices.")


class EvaluateConfig(Section):
    """Scores against reference segments, if there are any: `evaluation.txt`, `.json` and `.svg`
    (definitions: docs/evaluation.md)."""

    reference: ReferenceSetting = Field(
        default=None,
        description=(
            "JSON, CSV or parquet file of segments, WGO-Bench, or the result folder of another "
            "run; with several datasets `{name: file}`."
        ),
    )
    baselines: list[Literal["uniform", "motion"]] = Field(
        default=["uniform", "motion"],
        description=(
            "Baselines with the same number of segments per episode, scored for comparison: "
            "`uniform` (equal lengths) and `motion` (boundaries at the least motion)."
        ),
    )
    same_label_token_f1: float = Field(
        default=0.5, ge=0, le=1, description="Token F1 from which two labels count as equal."
    )
    judge: bool = Field(
        default=False,
        description=(
            "Let the model decide if labels mean the same (prompt `evaluate_judge`). Its verdict "
            "takes precedence over the words."
        ),
    )
    ignore_boxes: list[str] = Field(
        default=[], description="Names of reference boxes to ignore, e.g. `[gripper]`."
    )
