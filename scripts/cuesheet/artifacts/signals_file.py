"""The files of the recorded signals: `signals/layout.json` and `signals/{episode}.json`.

The layout assigns the dimensions of state and action to arms and grippers. It is detected once per
dataset, in its first episodes, and describes the robot, not its episodes. The signals file contains
the measurements of one episode. Frames are half-open ranges, times are seconds from the first
frame.
"""

from typing import Literal

from pydantic import ConfigDict, Field, FiniteFloat

from cuesheet.artifacts.stage_files import File, MotionSpan

StrokeKind = Literal["close", "open"]


class _Model(File):
    model_config = ConfigDict(extra="forbid", strict=False, frozen=True)


# How a gripper was found, in words.
FOUND_BY = {
    "config": "set in signals.gripper",
    "names": "found by its name",
    "data": "found by its motion",
}


class GripperLayout(_Model):
    """The dimensions of a gripper. `low` and `high` are the ends of its range in `measured_in`."""

    name: str  # "gripper", "left gripper", "gripper 1"
    arm: str | None  # name of the arm that it belongs to
    state: int | None  # dimension of the state
    action: int | None  # dimension of the action
    measured_in: Literal["state", "action"]
    found_by: Literal["config", "names", "data"]
    low: FiniteFloat
    high: FiniteFloat
    open_is_high: bool
    agreement: FiniteFloat | None = None  # |correlation| of action and state, 0 to 1


class ArmLayout(_Model):
    """Dimensions of the state of one arm, without its gripper. `speed`: its usual fast speed."""

    name: str  # "arm", "left arm", "arm 1"
    dimensions: list[int]
    speed: FiniteFloat = Field(gt=0)  # 90th percentile, in scaled units per second
    noise: FiniteFloat = Field(ge=0)  # 5th percentile
    position: list[int] | None = None  # state dimensions of the hand's x, y, z
    position_m: FiniteFloat | None = None  # typical extent of a movement, in the state's units


class SignalsLayout(_Model):
    """The meaning of the dimensions of state and action in a dataset."""

    format: Literal[1] = 1
    dataset: str
    state: list[str]  # columns that were joined to the state
    action: list[str]
    state_names: list[str]
    action_names: list[str]
    center: list[FiniteFloat]  # of every dimension of the state
    scale: list[FiniteFloat]  # 0 for a constant dimension
    arms: list[ArmLayout]
    grippers: list[GripperLayout]
    wanted: str | list[str] = "auto"  # the setting signals.gripper
    sampled_episodes: list[int]
    notices: list[str]

    def describe(self) -> str:
        """Return the arms and grippers in words."""
        grippers = ", ".join(f"{one.name} ({one.found_by})" for one in self.grippers)
        arms = ", ".join(one.name for one in self.arms)
        return f"grippers: {grippers or 'none'}; arms: {arms or 'none'}"

    def is_same_robot(self, other: "SignalsLayout") -> bool:
        """Return whether both have the same columns, arms and grippers; ranges may differ."""
        return self._structure == other._structure

    @property
    def _structure(self) -> list[object]:
        ranges = {"low", "high", "agreement", "speed", "noise", "position_m"}
        parts = [one.model_dump(exclude=ranges) for one in (*self.arms, *self.grippers)]
        names = [self.state, self.action, self.state_names, self.action_names]
        return [names, self.wanted, parts]


class Stroke(_Model):
    """The gripper moves from one level to another in frames [start_frame, end_frame)."""

    kind: StrokeKind
    start_frame: int
    end_frame: int
    start_s: FiniteFloat
    end_s: FiniteFloat


class Still(_Model):
    """The arm stands still in frames [start_frame, end_frame)."""

    start_frame: int
    end_frame: int
    start_s: FiniteFloat
    end_s: FiniteFloat


class Gripper(_Model):
    """One gripper in one episode. `opening`: 0 closed to 1 open at the times of the curves."""

    name: str
    strokes: list[Stroke]
    opening: list[FiniteFloat]


class Arm(_Model):
    """One arm in one episode. `speed`: 1 is the arm's usual fast speed, at the curves' times."""

    name: str
    still: list[Still]
    speed: list[FiniteFloat]


class SignalsFile(_Model):
    """`trajectory` is the scaled state at the times of the curves: a list per time."""

    format: Literal[1] = 1
    dataset: str
    episode_index: int
    length: int
    times_s: list[FiniteFloat]
    grippers: list[Gripper]
    arms: list[Arm]
    trajectory: list[list[FiniteFloat]]
    motion: list[MotionSpan]
    notices: list[str]
