"""Estimates what a run costs before it starts: requests, tokens, frames, disk, time and money.

The annotation stages are rehearsed (`cuesheet.annotate.rehearsal`) for a sample of the episodes
that still need them; totals are interpolated over the length of the episodes. Only metadata and
stage files are read.
"""

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from cuesheet.annotate.rehearsal import Request
from cuesheet.artifacts.layout import episode_name
from cuesheet.artifacts.stage_files import StageName, read_stage_file
from cuesheet.config import prompt_files
from cuesheet.errors import CuesheetError
from cuesheet.serving.response_cache import ResponseCache
from cuesheet.vlm.prompts import Prompts
from cuesheet.vlm.token_counts import TokenCounter, token_counter
from cuesheet.workflow.rehearsed_episode import (
    ASSUMED_SIZE,
    image_size,
    rehearse_episode,
    select_frames,
    undecoded_episode,
)
from cuesheet.workflow.remaining import Remaining, remaining_episodes
from cuesheet.workflow.run import Run
from cuesheet.workflow.run_dataset import RunDataset
from cuesheet.workflow.vocabulary_estimate import rehearse_vocabulary

# Episodes that are rehearsed; the others are interpolated by their length.
SAMPLED_EPISODES = 8
# Seconds per subtask that are assumed (likely, longest, shortest) if no finished plan tells.
_SUBTASK_S = (5.0, 10.0, 2.5)
# Finished plans that tell how long subtasks are, and by which factor others may differ.
_FEWEST_PLANS, _MOST_PLANS, _PLANS_DIFFER = 3, 50, 1.25
# Replies of models are shorter or longer than the typical ones by these factors.
_REPLY_RANGE = (0.6, 1.8)
# Prompts that contain earlier replies are shorter by this factor if these are.
_SHORTER_PROMPTS = 0.95
# Share of requests that are repeated in the high estimate: invalid replies, repeated questions.
_REPEATED = 0.1
# Measured on the demo and on AV1 datasets of 256 px: bytes per pixel of keyframes (PNG) and of
# H.264 clips, CPU seconds per episode (jobs and Snakemake) and per megapixel that is encoded.
_KEYFRAME_BYTES = 1.4
_CLIP_BYTES = 0.045
_CPU_S_PER_EPISODE = 1.0
_CPU_S_PER_MEGAPIXEL = 0.012


@dataclass(frozen=True)
class Amount:
    """Requests and their tokens."""

    requests: float = 0.0
    image_tokens: float = 0.0
    text_tokens: float = 0.0
    reply_tokens: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def times(self, factor: float) -> "Amount":
        return Amount(*(getattr(self, f.name) * factor for f in fields(self)))

    @property
    def prompt_tokens(self) -> float:
        return self.image_tokens + self.text_tokens


@dataclass(frozen=True)
class Range:
    """An amount as it is likely, and what it is between."""

    likely: Amount = Amount()
    low: Amount = Amount()
    high: Amount = Amount()

    def __add__(self, other: "Range") -> "Range":
        return Range(self.likely + other.likely, self.low + other.low, self.high + other.high)


@dataclass(frozen=True)
class Estimate:
    """What remains to be done for one dataset.

    `prompts`: likely amounts by prompt file, whether or not responses are cached. `stages` has
    them without `cached`, the likely amount whose responses are in the cache, except for the high
    estimate. `may_be_cached`: the cache has responses of the model, but no run had these settings
    of a stage, so even fewer requests than the low estimate may be sent.
    """

    dataset: str
    episodes: int
    video_s: float
    stages: Mapping[str, Range]
    prompts: Mapping[str, Amount]
    frames_to_decode: int
    clip_bytes: float
    keyframe_bytes: float
    cpu_s: float
    notices: Sequence[str] = ()
    cached: Amount = Amount()
    may_be_cached: bool = False

    @property
    def total(self) -> Range:
        return sum(self.stages.values(), Range())


@dataclass
class _Rehearsed:
    """The requests of one prompt file for one episode; `texts` tells which are the same."""

    amount: Amount = Amount()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Group:
    """Episodes that are interpolated together, and what was rehearsed of some of them."""

    members: set[int]
    rehearsed: Mapping[int, Mapping[tuple[str, str], _Rehearsed]]


def estimate_run(run: Run) -> list[Estimate]:
    """Return the estimate of every dataset of a run."""
    vlm = run.config.vlm
    counter = token_counter(run.model, vlm.sampling.mm_processor_kwargs)
    return [_estimate(run, dataset, counter) for dataset in run.datasets.values()]


def _estimate(run: Run, dataset: RunDataset, counter: TokenCounter) -> Estimate:
    remaining = remaining_episodes(run, dataset)
    needed = remaining.episodes
    notices = list(counter.notices)
    if any(not camera.width for camera in dataset.source.cameras.values()):
        width, height = ASSUMED_SIZE
        notices.append(f"the metadata has no image size; {width} x {height} px is assumed")
    lengths, plans = _subtask_lengths(run, dataset)
    if plans:
        notices.append(f"subtasks take {lengths[0]:.1f} s, as in {plans} finished episodes")
    else:
        notices.append(f"subtasks are assumed to take {lengths[0]:.0f} s")
    # Questions about single frames do not depend on the subtasks.
    dependent: list[StageName] = [stage for stage in run.asking_stages if stage != "vqa"]
    rehearsed = [
        _rehearse(run, dataset, counter, needed, length_s, stages)
        for length_s, stages in zip(lengths, (run.asking_stages, dependent, dependent), strict=True)
    ]
    stages: dict[str, Range] = {}
    by_prompt: dict[str, Amount] = {}
    cached = Amount()
    cache, recipes = ResponseCache(run.config.vlm.cache_dir), run.recipes(dataset)
    for stage in remaining.by_stage:
        amounts = [
            _amounts(dataset, made, remaining, stage)
            for made in (rehearsed if stage in dependent else rehearsed[:1])
        ]
        whole = _range([sum(found.values(), Amount()) for found in amounts])
        stages[stage] = _without_cached(
            whole, _count_cached(cache, recipes[stage], remaining, stage)
        )
        cached += whole.likely + stages[stage].likely.times(-1)
        by_prompt |= amounts[0]
    if run.config.plan.drafts_vocabulary:
        stages["vocabulary"], found = _vocabulary(run, dataset, counter, lengths[0])
        by_prompt |= found
    return Estimate(
        dataset.name,
        len(needed),
        sum(dataset.episode(index).length for index in needed) / dataset.source.fps,
        stages,
        by_prompt,
        notices=tuple(notices),
        cached=cached,
        may_be_cached=_may_be_cached(cache, recipes, remaining, run.model),
        **_media(run, dataset, needed),
    )


def _rehearse(
    run: Run,
    dataset: RunDataset,
    counter: TokenCounter,
    episodes: Collection[int],
    subtask_s: float,
    stages: Sequence[StageName],
) -> list[_Group]:
    """Rehearse a sample of the episodes, apart for those whose subtasks a person gave."""
    given = {index for index in episodes if dataset.given_subtasks(index) is not None}
    prompts = Prompts(
        dataset.prompts_dir / f"{name}.md" for name in prompt_files.of_stages(run.asking_stages)
    )
    groups = []
    for members in (given, set(episodes) - given):
        by_length = sorted(sorted(members), key=lambda index: dataset.episode(index).length)
        rehearsed = {
            index: _by_prompt(
                rehearse_episode(run, dataset, index, prompts, subtask_s, stages), counter
            )
            for index in _spread(by_length, SAMPLED_EPISODES)
        }
        groups.append(_Group(members, rehearsed))
    return groups


def _amounts(
    dataset: RunDataset, groups: Sequence[_Group], remaining: Remaining, stage: str
) -> dict[str, Amount]:
    """Return what a stage requests by prompt."""
    found: dict[str, Amount] = {}
    for group in groups:
        for name, prompt in sorted({key for made in group.rehearsed.values() for key in made}):
            if name == stage:
                episodes = group.members.intersection(remaining.of(stage, prompt))
                amount = _interpolate(dataset, group.rehearsed, (name, prompt), episodes)
                found[prompt] = found.get(prompt, Amount()) + amount
    return {prompt: found[prompt] for prompt in sorted(found)}


def _count_cached(cache: ResponseCache, recipe: str, remaining: Remaining, stage: str) -> int:
    """Return how many requests of the remaining episodes have a response in the cache.

    They are those of earlier runs with the same settings. Corrected episodes have other requests.
    """
    episodes = set(remaining.of(stage, "")) - remaining.corrected
    return len(set().union(*(cache.noted(recipe, episode_name(index)) for index in episodes)))


def _may_be_cached(
    cache: ResponseCache, recipes: Mapping[str, str], remaining: Remaining, model: str
) -> bool:
    """Tell whether the cache may have responses to a stage that has new settings."""
    is_new = any(
        episodes and not cache.has_noted(recipes[stage])
        for stage, episodes in remaining.by_stage.items()
    )
    return is_new and cache.may_hold(model)


def _without_cached(whole: Range, cached: int) -> Range:
    """Leave `cached` requests out, except of the high estimate: frames may have changed."""
    likely, low = (
        amount.times(max(0.0, 1 - cached / amount.requests)) if amount.requests else amount
        for amount in (whole.likely, whole.low)
    )
    return Range(likely, low, whole.high)


def _vocabulary(
    run: Run, dataset: RunDataset, counter: TokenCounter, subtask_s: float
) -> tuple[Range, dict[str, Amount]]:
    """Return what the labels of the tasks cost, in total and by prompt file."""
    found = {}
    rehearsed = rehearse_vocabulary(
        run, dataset, lambda index: undecoded_episode(run, dataset, index), subtask_s
    )
    for requests, factor in rehearsed:
        for (_, prompt), one in _by_prompt(requests, counter).items():
            found[prompt] = one.amount.times(factor)
    return _range([sum(found.values(), Amount())]), found


def _subtask_lengths(run: Run, dataset: RunDataset) -> tuple[Sequence[float], int]:
    """Return the length of a subtask (likely, longest, shortest; s), and the plans that tell it."""
    seconds, count, plans = 0.0, 0, 0
    for index in dataset.worked_on:
        path = dataset.layout.stage_file("plan", index)
        if plans >= _MOST_PLANS or not path.is_file():
            continue
        try:
            subtasks = read_stage_file(path, "plan").subtasks
        except CuesheetError:
            continue
        if subtasks:
            plans += 1
            count += len(subtasks)
            seconds += subtasks[-1].end_s - subtasks[0].start_s
    if plans < _FEWEST_PLANS:
        return _SUBTASK_S, 0
    mean_s = seconds / count
    return (mean_s, mean_s * _PLANS_DIFFER, mean_s / _PLANS_DIFFER), plans


def _by_prompt(
    requests: Iterable[Request], counter: TokenCounter
) -> dict[tuple[str, str], _Rehearsed]:
    """Add up requests by stage and prompt file."""
    found: dict[tuple[str, str], _Rehearsed] = {}
    for request in requests:
        one = found.setdefault((request.stage, request.prompt), _Rehearsed())
        one.texts += request.texts
        one.amount += Amount(
            1,
            counter.images(request.images),
            counter.text(*request.texts),
            counter.text_rule(request.reply),
        )
    return found


def _interpolate(
    dataset: RunDataset,
    rehearsed: Mapping[int, Mapping[tuple[str, str], _Rehearsed]],
    key: tuple[str, str],
    episodes: Collection[int],
) -> Amount:
    """Return the sum over `episodes`, interpolated between the rehearsed ones by length."""
    if not episodes or not rehearsed:
        return Amount()
    points: dict[int, list[Amount]] = {}
    for index, found in rehearsed.items():
        amount = found.get(key, _Rehearsed()).amount
        points.setdefault(dataset.episode(index).length, []).append(amount)
    lengths = sorted(points)
    at = [dataset.episode(index).length for index in episodes]
    sums = []
    for one in fields(Amount):
        values = [np.mean([getattr(a, one.name) for a in points[length]]) for length in lengths]
        sums.append(float(np.interp(at, lengths, values).sum()))
    total = Amount(*sums)
    if total.image_tokens or not _depends_on_task_alone(dataset, rehearsed, key):
        return total
    # It is sent once per task and then cached.
    share = len({dataset.episode(index).task for index in episodes}) / len(episodes)
    return total.times(share)


def _depends_on_task_alone(
    dataset: RunDataset,
    rehearsed: Mapping[int, Mapping[tuple[str, str], _Rehearsed]],
    key: tuple[str, str],
) -> bool:
    """Tell whether all rehearsed episodes with the same task make the same requests."""
    texts: dict[str, set[tuple[str, ...]]] = {}
    for index, found in rehearsed.items():
        made = found.get(key, _Rehearsed()).texts
        texts.setdefault(dataset.episode(index).task, set()).add(made)
    return all(len(of_task) == 1 for of_task in texts.values())


def _range(amounts: Sequence[Amount]) -> Range:
    """Return the range of the amounts for all assumed lengths; the first is the likely one."""
    low, high = {}, {}
    for one in fields(Amount):
        values = [getattr(amount, one.name) for amount in amounts]
        shorter, longer = _REPLY_RANGE if one.name == "reply_tokens" else (1.0, 1.0)
        shorter = _SHORTER_PROMPTS if one.name == "text_tokens" else shorter
        low[one.name] = min(values) * shorter
        high[one.name] = max(values) * longer * (1 + _REPEATED)
    return Range(amounts[0], Amount(**low), Amount(**high))


def _media(run: Run, dataset: RunDataset, needed: Collection[int]) -> dict[str, Any]:
    """Return what decoding and cutting take, for the episodes that have no keyframes yet."""
    frames, keyframe_bytes, clip_bytes, megapixels = 0, 0.0, 0.0, 0.0

    @functools.cache
    def decoded(length: int) -> int:
        return len(select_frames(run, length, dataset.source.fps).frame_indices)

    for index in dataset.worked_on:
        if dataset.layout.keyframes(index).is_dir():
            continue
        length = dataset.episode(index).length
        for camera in dataset.cameras_of(index):
            width, height = image_size(dataset, camera)
            frames += decoded(length)
            keyframe_bytes += decoded(length) * width * height * _KEYFRAME_BYTES
            clip_bytes += length * width * height * _CLIP_BYTES
            megapixels += length * width * height / 1e6
    return {
        "frames_to_decode": frames,
        "keyframe_bytes": keyframe_bytes,
        "clip_bytes": clip_bytes,
        "cpu_s": len(needed) * _CPU_S_PER_EPISODE + megapixels * _CPU_S_PER_MEGAPIXEL,
    }


def _spread(items: Sequence[int], count: int) -> list[int]:
    """Return at most `count` of `items`, evenly spread, with the first and the last."""
    if len(items) <= count:
        return list(items)
    return [items[round(n * (len(items) - 1) / (count - 1))] for n in range(count)]
