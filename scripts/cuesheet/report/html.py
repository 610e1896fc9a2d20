"""The report: one HTML file that needs no network, readable in light and dark."""

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from cuesheet.artifacts.layout import Layout
from cuesheet.artifacts.source_changes import describe
from cuesheet.artifacts.stage_files import VqaPair
from cuesheet.config.report import ReportConfig
from cuesheet.evaluation.labels import first_verb
from cuesheet.evaluation.table import difference_frame, interval_note, score_frame
from cuesheet.files import write_text
from cuesheet.report import plots as plots
from cuesheet.report.data import (
    COLORS,
    CallTally,
    ReportData,
    Sample,
    chosen_timelines,
    verb_colors,
)
from cuesheet.report.summary import DEMO_MODEL_NOTE, is_demo_model
from cuesheet.serving.accounting import in_words
from cuesheet.text import counted

PAGES = Path(__file__).parent / "pages"
_SAMPLE_WIDTH = 320  # px
_MOST_NAMED = 12


def render_page(template: str, **values: Any) -> str:
    """Return a page as text: a template of the folder `pages` with the styles of all pages."""
    environment = Environment(
        loader=FileSystemLoader(PAGES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = (PAGES / "theme.css").read_text() + (PAGES / "report.css").read_text()
    return environment.get_template(template).render(css=css, **values)


def render(
    data: ReportData,
    settings: ReportConfig,
    prompts: Mapping[str, Mapping[str, str | None]],
    scores: Mapping[str, Any] | None = None,
    evidence: Sequence[tuple[str, str]] = (),
    vocabulary: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the page as text.

    Args:
        data: what `gather` read.
        settings: limits and prices.
        prompts: the result of `prompt_texts`.
        scores: the result of `cuesheet.evaluation.scores.evaluate`.
        evidence: names and texts about recorded signals and corrections.
        vocabulary: the drafted labels of each task, see `report.vocabulary`.
    """
    models = [{"name": name, "served_by": served} for name, served in sorted(data.models)]
    colors = verb_colors(data.verbs)
    return render_page(
        "report.html.j2",
        data=data,
        models=[model["name"] for model in models],
        demo=DEMO_MODEL_NOTE[:1].upper() + DEMO_MODEL_NOTE[1:]
        if any(map(is_demo_model, models))
        else None,
        tiles=_tiles(data),
        plots=_plots(data),
        timelines=chosen_timelines(data.timelines, settings.max_timelines),
        legend=list(colors.items()) + ([("others", COLORS - 1)] if len(data.verbs) > 7 else []),
        color_of=lambda label: colors.get(first_verb(label), COLORS - 1),
        changed=describe,
        evidence=evidence,
        vocabulary=vocabulary,
        cameras=sorted({camera for counts in data.questions.values() for camera in counts}),
        samples=_samples(data),
        boxes_of=_boxes,
        points_of=_points,
        answer_text=answer_text,
        agreements=sorted(data.agreements, key=lambda one: one.value),
        inspections=sorted(data.inspections, key=lambda one: -one[1].doubt),
        mean_agreement=mean([one.value for one in data.agreements] or [0]),
        scores=score_table(scores) if scores else None,
        calls=_calls(data),
        cost=cost(data, settings),
        latencies=_latencies(data),
        prompts=[
            (name, digest, text)
            for name, texts in prompts.items()
            for digest, text in texts.items()
        ],
    )


def cost(data: ReportData, settings: ReportConfig) -> str | None:
    """Return the cost of the calls at the configured prices; None without prices."""
    if settings.price_prompt is None and settings.price_completion is None:
        return None
    total = sum(
        tally.prompt_tokens * (settings.price_prompt or 0)
        + tally.completion_tokens * (settings.price_completion or 0)
        for tally in data.calls.values()
    )
    return f"{total / 1e6:,.2f} {settings.currency}"


def answer_text(pair: VqaPair) -> str:
    """Return an answer in a few words."""
    answer = pair.answer
    match pair.type:
        case "bbox":
            return ", ".join(one["label"] for one in answer["detections"])
        case "keypoint":
            return f"{answer['label']} at ({answer['point'][0]:g}, {answer['point'][1]:g})"
        case "count":
            return f"{answer['count']} × {answer['label']}"
        case "attribute":
            return f"{answer['label']}: {answer['attribute']} {answer['value']}"
        case "spatial":
            relation = answer["relation"].replace("_", " ")
            return f"{answer['subject']} {relation} {answer['object']}"
    return json.dumps(answer, sort_keys=True)


def _boxes(pair: VqaPair) -> list[list[float]]:
    return [one["bbox"] for one in pair.answer.get("detections", ())]


def _points(pair: VqaPair) -> list[list[float]]:
    return [pair.answer["point"]] if "point" in pair.answer else []


def _tiles(data: ReportData) -> list[tuple[str, str]]:
    """Return numbers and what they count."""
    total, calls = data.annotated + len(data.missing), total_calls(data)
    texts = [
        counted(len(data.subtask_lengths_s), "subtask"),
        counted(sum(counts.total() for counts in data.questions.values()), "visual question"),
        counted(data.rows.total(), "language row"),
        f"{counted(calls.total, 'call')}, {calls.cache_hits:,} from the cache",
        counted(sum(map(len, data.warnings.values())), "warning"),
    ]
    episodes = "episode annotated" if total == 1 else "episodes annotated"
    return [
        (f"{data.annotated:,} of {total:,}", episodes),
        (in_words(data.duration_s), "of video, one camera"),
        *((number, noun) for number, _, noun in (text.partition(" ") for text in texts)),
    ]


def _plots(data: ReportData) -> list[tuple[str, str]]:
    found = []
    if data.rows.total():
        found.append(("Rows by style", plots.bars("rows", data.rows.most_common(), "rows")))
    if data.subtask_lengths_s:
        lengths = plots.histogram("lengths", data.subtask_lengths_s, "length of a subtask (s)")
        per_episode = plots.histogram(
            "subtasks", data.subtasks_per_episode, "subtasks in an episode", whole=True
        )
        found += [("Subtask lengths", lengths), ("Subtasks in an episode", per_episode)]
    for title, counts in (("Verbs", data.verbs), ("Objects", data.objects)):
        if counts:
            most = counts.most_common(_MOST_NAMED)
            found.append((title, plots.bars(title.casefold(), most, "subtasks")))
    return found


def _samples(data: ReportData) -> dict[str, list[tuple[Sample, str]]]:
    """Return samples by question type, each with its image as a data URL."""
    shown: dict[str, list[tuple[Sample, str]]] = {}
    for (question_type, _), samples in sorted(data.samples.items()):
        shown.setdefault(question_type, []).extend(
            (sample, _data_url(sample.image)) for sample in samples
        )
    return shown


def _data_url(path: Path) -> str:
    with Image.open(path) as image:
        small = image.convert("RGB")
        small.thumbnail((_SAMPLE_WIDTH, _SAMPLE_WIDTH))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _calls(data: ReportData) -> list[list[str]]:
    rows = [_call_row(name, tally) for name, tally in sorted(data.calls.items())]
    if len(rows) > 1:
        rows.append(_call_row("all", total_calls(data)))
    return rows


def total_calls(data: ReportData) -> CallTally:
    """Return the sums over all prompts."""
    total = CallTally()
    for tally in data.calls.values():
        for name, value in vars(tally).items():
            setattr(total, name, getattr(total, name) + value)
    return total


def _call_row(name: str, tally: CallTally) -> list[str]:
    times = tally.latencies_s
    numbers = [tally.total, tally.cache_hits, tally.retried, tally.invalid, tally.retries]
    numbers += [tally.prompt_tokens, tally.completion_tokens]
    late = quantiles(times, n=20)[-1] if len(times) > 1 else sum(times)
    spent = [f"{median(times):.2f}", f"{late:.2f}", f"{sum(times):,.1f}"] if times else ["–"] * 3
    return [name, *(f"{number:,}" for number in numbers), *spent]


def _latencies(data: ReportData) -> str | None:
    groups = {
        name: tally.latencies_s for name, tally in sorted(data.calls.items()) if tally.latencies_s
    }
    return (
        plots.boxes("latencies", groups, "seconds; line: median, box: quartiles")
        if groups
        else None
    )


def store_prompts(results: Path, data: ReportData, folder: Path) -> None:
    """Store the text of the prompts that were used, so that later reports can show it.

    Args:
        results: result folder of the dataset.
        data: what `gather` read from it.
        folder: the prompt files. One that has changed since the run is not stored.
    """
    for name, digests in data.prompts.items():
        path = folder / f"{name}.md"
        text = path.read_bytes() if path.is_file() else b""
        digest = hashlib.sha256(text).hexdigest()
        stored = Layout(results).prompt(digest)
        if digest in digests and not stored.is_file():
            write_text(stored, text.decode())


def prompt_texts(results: Path, data: ReportData) -> dict[str, dict[str, str | None]]:
    """Return the prompts that were used: name, then sha256, then the stored text or None."""
    found: dict[str, dict[str, str | None]] = {}
    for name, digests in sorted(data.prompts.items()):
        for digest in sorted(digests):
            path = Layout(results).prompt(digest)
            text = path.read_text(encoding="utf-8") if path.is_file() else None
            found.setdefault(name, {})[digest] = text
    return found


def score_table(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of `evaluation.scores.evaluate` as tables of text.

    Returns:
        `names`, `rows` of (title, cells), `episodes`, `note` on the intervals, and `differences`
        with `names` and `rows` of its own.
    """
    scores, differences = score_frame(report), difference_frame(report)
    return {
        "names": list(scores.columns),
        "episodes": len(report["episodes"]),
        "note": interval_note(report),
        "rows": _text_rows(scores),
        "differences": {"names": list(differences.columns), "rows": _text_rows(differences)},
    }


def _text_rows(table: pd.DataFrame) -> list[tuple[str, list[str]]]:
    return [(str(title), list(cells)) for title, *cells in table.itertuples()]
