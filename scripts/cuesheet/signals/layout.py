"""Decides from a sample of episodes what the dimensions of a dataset's state and action are."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cuesheet.artifacts.signals_file import ArmLayout, GripperLayout, SignalsLayout
from cuesheet.errors import CuesheetError
from cuesheet.signals import gripper
from cuesheet.signals.gripper import Sample
from cuesheet.signals.motion import arm_speed, position_dimensions
from cuesheet.signals.record import Record
from cuesheet.signals.series import fill_gaps, robust_range
from cuesheet.text import did_you_mean

# The layout is derived from this many episodes: the lowest numbers whose data files exist.
SAMPLED_EPISODES = 8


@dataclass(frozen=True)
class Names:
    """Columns and dimension names of a dataset's state and action."""

    state_columns: Sequence[str]
    action_columns: Sequence[str]
    state: Sequence[str]
    action: Sequence[str]


FoundBy = Literal["config", "names", "data"]


@dataclass(frozen=True)
class _Found:
    """A gripper: its dimensions of state and action, one of which may be missing."""

    state: int | None
    action: int | None
    found_by: FoundBy
    agreement: float  # signed correlation of action and state; 0 if one is missing


@dataclass(frozen=True)
class _Measured:
    """A gripper in the record that measures it: the state, or the action without a state."""

    record: Literal["state", "action"]
    name: str  # of the dimension
    series: list[np.ndarray]  # of every sampled episode
    low: float
    high: float


def make_layout(
    dataset: str,
    episodes: Sequence[int],
    records: Sequence[Record],
    names: Names,
    wanted: str | Sequence[str],
) -> SignalsLayout:
    """Return the layout of a dataset. `wanted`: `auto`, `none`, or the names of the grippers.

    Raises CuesheetError if a wanted gripper is not a dimension of the state or the action.
    """
    times = [record.timestamps_s for record in records]
    state = Sample(times, [fill_gaps(record.state) for record in records], names.state)
    action = Sample(times, [fill_gaps(record.action) for record in records], names.action)
    notices: list[str] = []
    found = _find(state, action, wanted, notices)
    center = scale = np.zeros(len(names.state))
    if records:
        units, low, high = gripper.scaled(state)
        scale = np.where(high > low, np.std(np.concatenate(units), axis=0) * (high - low), 0.0)
        center = np.concatenate(state.values).mean(axis=0)
    arms = _arms(state, found, scale)
    return SignalsLayout(
        dataset=dataset,
        state=list(names.state_columns),
        action=list(names.action_columns),
        state_names=list(names.state),
        action_names=list(names.action),
        center=center.tolist(),
        scale=scale.tolist(),
        arms=arms,
        grippers=_gripper_layouts(state, action, found, arms),
        wanted=wanted if isinstance(wanted, str) else list(wanted),
        sampled_episodes=list(episodes),
        notices=notices,
    )


def _find(
    state: Sample, action: Sample, wanted: str | Sequence[str], notices: list[str]
) -> list[_Found]:
    if wanted == "none" or not state.values:
        return []
    if wanted != "auto":
        return _pair(state, action, *_configured(state.names, action.names, wanted), "config")
    by_name = (gripper.named_grippers(state.names), gripper.named_grippers(action.names))
    if any(by_name):
        found = _pair(state, action, *by_name, "names")
        return [one for one in found if _is_plausible(one, state, action, notices)]
    return _by_behavior(state, action, notices)


def _configured(
    state: Sequence[str], action: Sequence[str], wanted: str | Sequence[str]
) -> tuple[list[int], list[int]]:
    """Return the dimensions of state and action with the configured names."""
    wanted = [wanted] if isinstance(wanted, str) else wanted
    known = list(dict.fromkeys([*state, *action]))
    for name in wanted:
        if name not in known:
            near = did_you_mean(name, known)
            raise CuesheetError(
                f"config: signals.gripper: the dataset has no dimension {name!r}"
                + (f"; did you mean {near!r}?" if near else "")
                + f" Its dimensions are {', '.join(known) or 'none'}."
            )
    of_state, of_action = (
        [index for name in wanted for index, given in enumerate(names) if given == name]
        for names in (state, action)
    )
    return of_state, of_action


def _pair(
    state: Sample,
    action: Sample,
    of_state: Sequence[int],
    of_action: Sequence[int],
    found_by: FoundBy,
) -> list[_Found]:
    """Return one gripper per state dimension, with its action; two fingers are one gripper."""
    kept: list[int] = []
    for dimension in of_state:
        mirrored = any(
            gripper.side_of(state.names[dimension]) == gripper.side_of(state.names[other])
            and _alike(state, dimension, other)
            for other in kept
        )
        if not mirrored:
            kept.append(dimension)
    left = list(of_action)
    found: list[_Found] = []
    for dimension in kept:
        side = gripper.side_of(state.names[dimension])
        same_side = [d for d in left if gripper.side_of(action.names[d]) == side] or left
        rated = [(_agreement(state, action, dimension, other), other) for other in same_side]
        best = max(rated, key=lambda pair: abs(pair[0]), default=None)
        if best is not None and len(kept) >= len(of_action) - len(found):
            left.remove(best[1])
        if best is not None and abs(best[0]) >= gripper.MIN_AGREEMENT:
            found.append(_Found(dimension, best[1], found_by, best[0]))
        else:
            found.append(_Found(dimension, None, found_by, 0.0))
    if not kept:
        found = [_Found(None, dimension, found_by, 0.0) for dimension in left]
    return found


def _alike(sample: Sample, first: int, second: int) -> bool:
    pooled = np.concatenate(sample.values)
    return abs(gripper.correlation(pooled[:, first], pooled[:, second])) > 0.95


def _agreement(state: Sample, action: Sample, of_state: int, of_action: int) -> float:
    return gripper.lagged_agreement(state.times_s, action.column(of_action), state.column(of_state))


def _measure(one: _Found, state: Sample, action: Sample) -> _Measured:
    record: Literal["state", "action"] = "action" if one.state is None else "state"
    sample, dimension = (action, one.action) if one.state is None else (state, one.state)
    assert dimension is not None
    series = sample.column(dimension)
    low, high = robust_range(np.concatenate(series)[:, None])
    return _Measured(record, sample.names[dimension], series, float(low[0]), float(high[0]))


def _is_plausible(one: _Found, state: Sample, action: Sample, notices: list[str]) -> bool:
    """Tell whether a named gripper moves, and not all the time; add a notice if it does not."""
    measured, minutes = _measure(one, state, action), state.minutes
    strokes = state.count_strokes(measured.series, measured.low, measured.high)
    if strokes == 0:
        notices.append(f"{measured.name}: named like a gripper but it does not move; not used")
        return False
    if strokes > gripper.MAX_STROKES_PER_MINUTE * max(minutes, 0.1):
        notices.append(
            f"{measured.name}: named like a gripper but it switches {strokes / minutes:.0f} "
            "times per minute; not used"
        )
        return False
    return True


def _by_behavior(state: Sample, action: Sample, notices: list[str]) -> list[_Found]:
    """Return the dimensions that behave like a gripper, of the state or else of the action."""
    rated_state, rated_action = gripper.scores(state), gripper.scores(action)
    found: list[_Found] = []
    used: set[int] = set()
    for dimension, rated in enumerate(rated_state):
        score, signed = rated or 0.0, 0.0
        partner: int | None = None
        for other, behavior in enumerate(rated_action) if score >= 0.5 else ():
            if behavior is None or other in used:
                continue
            value = _agreement(state, action, dimension, other)
            is_better = (abs(value), value) >= (abs(signed), signed)
            if abs(value) >= gripper.MIN_AGREEMENT and is_better:
                signed, partner = value, other
        # Both records of the same gripper vote.
        if partner is not None:
            score = 0.5 * (score + (rated_action[partner] or 0.0))
        if score >= gripper.ACCEPTED:
            found.append(_Found(dimension, partner, "data", signed))
            if partner is not None:
                used.add(partner)
        elif score >= gripper.DOUBTFUL:
            notices.append(
                f"{state.names[dimension]} may be a gripper (score {score:.2f}, {gripper.ACCEPTED} "
                "needed); not used. Set signals.gripper to its name to use it"
            )
    found = _without_mirrors(state, found)
    if not found and not any(rated_state):
        found = [
            _Found(None, dimension, "data", 0.0)
            for dimension, rated in enumerate(rated_action)
            if (rated or 0.0) >= gripper.ACCEPTED + 0.08
        ]
    if len(found) > max(2, (state.width or action.width) // 4):
        notices.append(
            f"{len(found)} dimensions behave like grippers; none is used. Set signals.gripper"
        )
        return []
    return found


def _without_mirrors(state: Sample, found: Sequence[_Found]) -> list[_Found]:
    """Keep one of two neighboring dimensions that always move alike: fingers of one gripper."""
    kept: list[_Found] = []
    for one in found:
        before = kept[-1].state if kept else None
        if before is not None and one.state == before + 1 and _alike(state, one.state, before):
            continue
        kept.append(one)
    return kept


def _arms(state: Sample, found: Sequence[_Found], scale: np.ndarray) -> list[ArmLayout]:
    """Return the moving state dimensions by arm: by side in the names, else by the grippers."""
    taken = {one.state for one in found} | set(gripper.named_grippers(state.names))
    free = [d for d in range(state.width) if d not in taken and scale[d] > 0]
    if not free:
        return []
    groups = _by_side(free, state.names) or _by_gripper(free, found, state.width)
    arms = []
    for name, dimensions in groups.items():
        position = position_dimensions(dimensions, state.names)
        speeds = np.concatenate(
            [
                arm_speed(times, values[:, dimensions], scale[dimensions])
                for times, values in zip(state.times_s, state.values, strict=True)
            ]
        )
        usual, noise = np.percentile(speeds, (90, 5))
        extent = None
        if position:
            extent = float(np.median([np.ptp(v[:, position], axis=0).max() for v in state.values]))
        if usual > 0:
            arms.append(
                ArmLayout(
                    name=name,
                    dimensions=dimensions,
                    speed=float(usual),
                    noise=float(noise),
                    position=position,
                    position_m=extent,
                )
            )
    return arms


def _by_side(free: Sequence[int], names: Sequence[str]) -> dict[str, list[int]]:
    sides: dict[str, list[int]] = {}
    for dimension in free:
        side = gripper.side_of(names[dimension])
        if side:
            sides.setdefault(f"{side} arm", []).append(dimension)
    return sides if len(sides) == 2 else {}


def _by_gripper(free: Sequence[int], found: Sequence[_Found], width: int) -> dict[str, list[int]]:
    """With two grippers each block that ends with one is an arm; grippers at the end: halves."""
    places = sorted(one.state for one in found if one.state is not None)
    if len(places) != 2:
        return {"arm": list(free)}
    first = [d for d in free if d < places[0]]
    second = [d for d in free if d > places[0]]
    if not second or not first or places[1] == places[0] + 1:
        half = len(free) // 2
        first, second = list(free[:half]), list(free[half:])
    return {"arm 1": first, "arm 2": second}


def _gripper_layouts(
    state: Sample, action: Sample, found: Sequence[_Found], arms: Sequence[ArmLayout]
) -> list[GripperLayout]:
    measured = [_measure(one, state, action) for one in found]
    labels = _labels([one.name for one in measured])
    layouts = []
    for number, (one, of_one, label) in enumerate(zip(found, measured, labels, strict=True)):
        arm = next((a.name for a in arms if a.name.split()[0] == label.split()[0]), None)
        if arm is None and arms:
            arm = arms[number].name if len(arms) == len(found) else arms[0].name
        is_paired = one.state is not None and one.action is not None
        layouts.append(
            GripperLayout(
                name=label,
                arm=arm,
                state=one.state,
                action=one.action,
                measured_in=of_one.record,
                found_by=one.found_by,
                low=of_one.low,
                high=of_one.high if of_one.high > of_one.low else of_one.low + 1.0,
                open_is_high=_open_is_high(of_one),
                agreement=abs(one.agreement) if is_paired else None,
            )
        )
    return layouts


def _labels(names: Sequence[str]) -> list[str]:
    if len(names) == 1:
        return ["gripper"]
    sides = [gripper.side_of(name) for name in names]
    if None not in sides and len(set(sides)) == len(names):
        return [f"{side} gripper" for side in sides]
    return [f"gripper {number}" for number in range(1, len(names) + 1)]


def _open_is_high(measured: _Measured) -> bool:
    """Tell whether the high end of the range is open: by name, else by variation, start and end.

    A gripper that closes on an object stops short of its end, so the closed levels vary more and
    the open one recurs; most episodes begin and end with an open gripper. A state usually counts
    the opening up.
    """
    if re.search(r"clos", measured.name, re.IGNORECASE):
        return False
    if re.search(r"open|width|aperture", measured.name, re.IGNORECASE):
        return True
    low, span = measured.low, max(measured.high - measured.low, 1e-12)
    units = np.concatenate(measured.series) / span - low / span
    spread_low = float(np.percentile(units[units < 0.5], 75)) if (units < 0.5).any() else 0.0
    spread_high = 1 - float(np.percentile(units[units > 0.5], 25)) if (units > 0.5).any() else 0.0
    rest_low, rest_high = gripper.rest_at_low_end(units), gripper.rest_at_low_end(1 - units)
    ends = np.array([values[frame] for values in measured.series for frame in (0, -1)])
    vote = 2.0 * (spread_low - spread_high) + 0.5 * (rest_high - rest_low)
    vote += 0.5 * float(np.mean(np.where((ends - low) / span > 0.5, 1, -1)))
    return vote + (0.3 if measured.record == "state" else 0.0) > 0
