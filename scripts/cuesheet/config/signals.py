"""Settings of the recorded signals (section `signals`)."""

from typing import Annotated, Any, Literal

from pydantic import Field

from cuesheet.config.types import Expected, Section


class SignalsConfig(Section):
    """Recorded signals: gripper strokes, rests and motion (docs/better-labels.md)."""

    enabled: bool = True
    """Read state and action. Datasets without them are annotated from images alone."""
    state: list[str] = Field(default=["observation.state"])
    """Columns of the state; those that the dataset does not have are skipped."""
    action: list[str] = Field(default=["action"])
    """Columns of the action; those that the dataset does not have are skipped."""
    gripper: Annotated[
        Literal["auto", "none"] | list[str], Expected("`auto`, `none` or a list of dimension names")
    ] = "auto"
    """Dimensions that are grippers. `auto`: by name (gripper, finger, hand, ...) if the dataset
    names its dimensions, otherwise by behavior. Without names, a dimension is called
    `observation.state[6]`. Check the result with `cuesheet signals`.
    """
    snap_s: float = Field(default=0.5, ge=0, le=10)
    """Boundaries are moved to a recorded event that is at most this far away."""
    min_snapped: float = Field(default=0.3, ge=0, le=1)
    """An episode is snapped only if at least this share of its own boundaries has an event within
    `snap_s`.
    """
    motion: bool = False
    """Write `motion` rows (strokes, standing still, direction of movement) with the plan."""

    @property
    def detection(self) -> dict[str, Any]:
        """The settings that determine which arms and grippers are found."""
        return self.model_dump(include={"state", "action", "gripper"})
