"""The estimate of a run in words."""

from cuesheet.config.vlm import VlmConfig
from cuesheet.serving.accounting import in_words
from cuesheet.text import counted
from cuesheet.workflow.estimate import Amount, Estimate, Range
from cuesheet.workflow.run import Run


def as_table(estimate: Estimate, run: Run) -> str:
    """Return the estimate of one dataset, with its parts."""
    lines = [
        f"{estimate.dataset}: {estimate.episodes:,} "
        f"{'episode' if estimate.episodes == 1 else 'episodes'} to annotate, "
        f"{in_words(estimate.video_s)} of recording, model {run.model}",
        f"  {'':<28}{'requests':>10}{'image tokens':>14}{'text tokens':>13}{'reply tokens':>14}",
    ]
    asked = {name: amount for name, amount in estimate.prompts.items() if amount.requests}
    lines += [_row(name, amount) for name, amount in asked.items()]
    if estimate.cached.requests:
        lines.append(_row("in the cache", estimate.cached))
    total = estimate.total
    lines += [
        _row("likely", total.likely),
        _row("at least", total.low),
        _row("at most", total.high),
        f"  Frames to decode:  {estimate.frames_to_decode:,}",
        f"  Disk:              about {_megabytes(estimate.clip_bytes)} of clips, "
        f"{_megabytes(estimate.keyframe_bytes)} of keyframes",
        f"  CPU time:          about {in_words(estimate.cpu_s)}, without the model server",
        *(f"  {name:<18} {text}" for name, text in _price(total, run.config.vlm, run.gpus)),
    ]
    notices = list(estimate.notices)
    if estimate.cached.requests:
        notices.append(
            "responses in the cache are not requested again, so `likely` and `at least` do not "
            "count them; `at most` does, because a request may differ from that of the earlier run"
        )
    if estimate.may_be_cached:
        notices.append(
            "the cache has responses of this model to requests with other settings or prompts; "
            "requests that did not change are not sent again, so fewer than `at least` may be sent"
        )
    return "\n".join([*lines, *(f"  NOTICE: {notice}" for notice in notices)])


def as_line(estimate: Estimate, run: Run) -> str:
    """Return the estimate of one dataset in one line."""
    total = estimate.total
    if not total.high.requests:
        return f"{estimate.dataset}: no requests are estimated"
    parts = [
        f"{estimate.dataset}: estimated {short_text(total)}",
        *_cached(estimate),
        f"{estimate.frames_to_decode:,} frames to decode",
        f"{_megabytes(estimate.clip_bytes + estimate.keyframe_bytes)} on disk",
        *(
            f"{name.rstrip(':').lower()} {value}"
            for name, value in _price(total, run.config.vlm, run.gpus)
        ),
    ]
    return ", ".join(parts) + "; `cuesheet estimate` shows the parts"


def _cached(estimate: Estimate) -> list[str]:
    count = round(estimate.cached.requests)
    parts = [f"{counted(count, 'response')} more from the cache"] if count else []
    if estimate.may_be_cached:
        parts.append("fewer if the cache has responses to some of them")
    return parts


def short_text(total: Range) -> str:
    """Return requests and tokens with their ranges."""

    def of(name: str) -> str:
        likely, low, high = (getattr(a, name) for a in (total.likely, total.low, total.high))
        return f"{likely:,.0f} ({low:,.0f} to {high:,.0f})"

    return (
        f"{of('requests')} requests, {of('prompt_tokens')} prompt tokens, "
        f"{of('reply_tokens')} reply tokens"
    )


def _row(name: str, amount: Amount) -> str:
    return (
        f"  {name:<28}{amount.requests:>10,.0f}{amount.image_tokens:>14,.0f}"
        f"{amount.text_tokens:>13,.0f}{amount.reply_tokens:>14,.0f}"
    )


def _price(total: Range, vlm: VlmConfig, gpus: int) -> list[tuple[str, str]]:
    """Return the lines about money and GPU hours that prices and throughput allow."""
    found = []
    price, speed = vlm.price, vlm.throughput
    three = (total.likely, total.low, total.high)
    costs = [(a.prompt_tokens * price.input + a.reply_tokens * price.output) / 1e6 for a in three]
    if speed.input and speed.output:
        seconds = [a.prompt_tokens / speed.input + a.reply_tokens / speed.output for a in three]
        hours = [max(gpus, 1) * value / 3600 for value in seconds]
        found.append(("GPU hours:", "{:,.2f} ({:,.2f} to {:,.2f})".format(*hours)))
        costs = [cost + hour * price.gpu_hour for cost, hour in zip(costs, hours, strict=True)]
    if any(costs):
        found.append(("Cost:", "{:,.2f} ({:,.2f} to {:,.2f})".format(*costs)))
    return found


def _megabytes(count: float) -> str:
    return f"{count / 1e6:,.0f} MB" if count < 1e10 else f"{count / 1e9:,.1f} GB"
