"""Paths below the results folder: spelled in one module, and the same in the rules."""

import ast
import re
from pathlib import Path

import pytest
from snakemake.pathvars import Pathvars

from cuesheet.artifacts import layout
from cuesheet.artifacts.layout import RESULTS, Layout, benchmark_of, failure_record

REPOSITORY = Path(__file__).resolve().parents[3]
LIBRARY = REPOSITORY / "scripts"
PATTERNS = Layout(Path("<results>") / "{dataset}")
EPISODE = "{episode}"

OUTPUTS = {
    "index_episodes": [PATTERNS.index],
    "extract_clip": [PATTERNS.clip("{camera}", EPISODE)],
    "decode_keyframes": [PATTERNS.keyframes(EPISODE)],
    "detect_signals": [PATTERNS.signals_layout],
    "extract_signals": [PATTERNS.signals(EPISODE)],
    "annotate_plan": [PATTERNS.plan(EPISODE)],
    "annotate_interjections": [PATTERNS.interjections(EPISODE)],
    "annotate_vqa": [PATTERNS.vqa(EPISODE)],
    "inspect_episode": [PATTERNS.inspection(EPISODE)],
    "draft_vocabulary": [PATTERNS.vocabulary_draft(EPISODE)],
    "build_vocabulary": [PATTERNS.vocabulary("{task}"), PATTERNS.vocabulary_requests("{task}")],
    "validate_episode": [PATTERNS.validation(EPISODE), PATTERNS.validation_text(EPISODE)],
    "number_subtasks": [PATTERNS.subtasks],
    "merge_language": [PATTERNS.folder / "{tree}" / "{data_file}.parquet"],
    "finalize_dataset": [PATTERNS.annotated_info],
    "export_annotations": [
        PATTERNS.exported_inspections,  # only with inspections
        PATTERNS.export("parquet"),
        PATTERNS.export("jsonl"),
    ],
    "prepare_shard": [PATTERNS.shard_media_marker("{shard}")],
    "prepare_vocabulary": [PATTERNS.shards_vocabulary],
    "annotate_shard": [PATTERNS.shard_marker("{shard}")],
    "summarize_dataset": [PATTERNS.summary, PATTERNS.summary_text],
    "write_report": [PATTERNS.report],
    "build_review": [PATTERNS.review_page],
    "score_annotations": [PATTERNS.evaluation(suffix) for suffix in ("json", "txt", "svg")],
}


def _rules() -> dict[str, str]:
    """The text of every rule that does work, by name."""
    text = "\n".join(path.read_text() for path in sorted((REPOSITORY / "rules").glob("*.smk")))
    parts = re.split(r"^rule (\w+):\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _paths(rule: str, section: str) -> list[str]:
    """The paths in one section (output, log, benchmark) of a rule's text."""
    found = re.search(rf"^    {section}:\n((?:        .*\n)+)", rule, flags=re.MULTILINE)
    assert found, f"no {section}:\n{rule}"
    return re.findall(r'"(<results>[^"]*)"', found[1])


def test_every_rule_writes_what_the_layout_names() -> None:
    outputs = {name: _paths(text, "output") for name, text in _rules().items()}
    assert outputs == {name: [str(path) for path in paths] for name, paths in OUTPUTS.items()}


def test_rules_write_logs_and_benchmarks_to_the_paths_of_the_layout() -> None:
    for name, text in _rules().items():
        (log,), (benchmark,) = _paths(text, "log"), _paths(text, "benchmark")
        parts = Path(log).with_suffix("").relative_to(PATTERNS.logs / name).parts
        assert Path(log) == PATTERNS.log(name, *parts)
        assert Path(benchmark) == benchmark_of(PATTERNS.log(name, *parts))


def test_rules_name_the_results_folder_by_its_path_variable_only() -> None:
    for path in (REPOSITORY / "Snakefile", *(REPOSITORY / "rules").glob("*.smk")):
        assert not re.findall(r"[\"']results/.*", path.read_text()), path
    assert Pathvars.with_defaults().apply("<results>") == str(RESULTS)


def test_failure_record_takes_the_place_of_the_log() -> None:
    files = Layout(Path("results/demo"))
    assert failure_record(files.log("extract_clip", "front", "000003")) == Path(
        "results/demo/failed/extract_clip/front/000003.json"
    )
    assert failure_record(files.log("merge_language", "annotated", "data", "file-000")) is None


def test_a_task_has_a_readable_and_unambiguous_name() -> None:
    assert layout.task_id("Open a drawer").startswith("open-a-drawer-")
    assert layout.task_id("Open a drawer") != layout.task_id("open a drawer!")
    assert re.fullmatch(r"[0-9a-f]{8}", layout.task_id("打开抽屉"))
    assert len(layout.task_id("put " * 100)) < 60


def _names() -> set[str]:
    """File and folder names of the layout, as code that joins paths would write them."""
    files = Layout(Path())
    properties = [name for name, value in vars(Layout).items() if isinstance(value, property)]
    paths = [Path(str(getattr(files, name))) for name in properties if name != "dataset"]
    paths += [files.evaluation(), files.clip("x", 0), files.log("x")]
    paths += [files.stage_folder(name) for name in ("plan", "interjections", "vqa", "validation")]
    first = {path.parts[0] for path in paths if path.parts}
    return first | {layout.KEYFRAMES_FILE}


def _is_joined(node: ast.BinOp) -> bool:
    """Whether `a / "name"` joins paths of the results, not of page templates or private files."""
    left = ast.unparse(node.left)
    return isinstance(node.op, ast.Div) and not re.search(r"PAGES|\.cuesheet", left)


def _spelled(source: str) -> list[str]:
    """Places that spell a path below the results folder: `x / "plan"`, `{episode:06d}`."""
    names, found = _names(), []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            if "06d" in ast.unparse(node.format_spec):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.BinOp) and _is_joined(node):
            right = node.right
            if isinstance(right, ast.Constant) and right.value in names:
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "Path" and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and str(first.value).split("/")[0] == "results":
                found.append(ast.unparse(node))
        elif isinstance(node, ast.JoinedStr) and ast.unparse(node)[2:].startswith("results/"):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "line",
    [
        'path = folder / "plan" / name',
        'path = folder / "keyframes.json"',
        'name = f"{index:06d}.json"',
        'folder = Path("results") / name',
        'path = f"results/{name}/summary.json"',
    ],
)
def test_a_path_that_is_spelled_is_found(line: str) -> None:
    assert _spelled(line)


def test_no_other_module_spells_a_path_below_the_results_folder() -> None:
    others = [path for path in LIBRARY.rglob("*.py") if path != Path(layout.__file__)]
    assert len(others) > 100
    found = {
        str(path.relative_to(LIBRARY)): spelled
        for path in others
        if "demo_vlm" not in path.parts and (spelled := _spelled(path.read_text()))
    }
    assert found == {}
