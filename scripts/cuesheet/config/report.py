"""Settings of what a person looks at: the report and the scores."""

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
    """The report, one HTML file a dataset: `results/{name}/report.html`."""

    max_timelines: int = Field(
        default=200,
        ge=1,
        description=(
            "At most so many episodes have their timeline in the report: those with warnings "
            "first, then an even choice of the others. The review page has all."
        ),
    )
    price_prompt: Price = Field(
        default=None, description="Price of a million prompt tokens; null: no cost is shown."
    )
    price_completion: Price = Field(
        default=None, description="Price of a million completion tokens; null: no cost is shown."
    )
    currency: str = Field(default="USD", description="Of the prices.")


class EvaluateConfig(Section):
    """Scores against reference segments, for datasets that have some: `evaluation.txt`, `.json`
    and `.svg` (definitions: docs/evaluation.md)."""

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
            "Guesses with as many segments an episode that are scored beside: `uniform` (equally "
            "long) and `motion` (cut where the picture moves least)."
        ),
    )
    same_label_token_f1: float = Field(
        default=0.5, ge=0, le=1, description="Labels mean the same from this token F1 on."
    )
    judge: bool = Field(
        default=False,
        description=(
            "Ask the model whether labels mean the same (prompt `evaluate_judge`); its verdict "
            "then counts before the words."
        ),
    )
    ignore_boxes: list[str] = Field(
        default=[], description="Names of reference boxes that do not count, e.g. `[gripper]`."
    )
