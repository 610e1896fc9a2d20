"""Each rule for annotations, broken once, gives its own error code; valid ones pass."""

import copy
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from keyframe_files import keyframes_json

from cuesheet.artifacts.episode import KeyframesFile
from cuesheet.artifacts.stage_files import StageFile, read_stage_file
from cuesheet.assemble.validate import validate_episode
from cuesheet.errors import CuesheetError

FRONT, WRIST = "observation.images.front", "observation.images.wrist"
LENGTH = 40
TIMES = [float(str(np.float32(i / 10))) for i in range(LENGTH)]
SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "validate_episode.py"


def row(style, role, content, timestamp, camera=None, say=None):
    calls = None
    if say is not None:
        calls = [{"type": "function", "function": {"name": "say", "arguments": {"text": say}}}]
    return {
        "role": role,
        "content": content,
        "style": style,
        "timestamp": timestamp,
        "camera": camera,
        "tool_calls": calls,
    }


VALID_ANSWERS = {
    "bbox": {"detections": [{"bbox": [10, 20.5, 60, 90], "bbox_format": "xyxy", "label": "puck"}]},
    "keypoint": {"label": "handle", "point": [12.5, 100], "point_format": "xy"},
    "count": {"count": 2, "label": "pucks"},
    "attribute": {"attribute": "color", "label": "puck", "value": "red"},
    "spatial": {"object": "bin", "relation": "left_of", "subject": "puck"},
}


def vqa_file():
    pairs, events = [], []
    places = [(0, FRONT), (10, FRONT), (20, FRONT), (20, WRIST), (30, FRONT)]
    for (frame, camera), (kind, answer) in zip(places, VALID_ANSWERS.items(), strict=True):
        question = f"A {kind} question?"
        pairs.append(
            {
                "frame_index": frame,
                "camera": camera,
                "type": kind,
                "question": question,
                "answer": answer,
            }
        )
        events.append(row("vqa", "user", question, TIMES[frame], camera))
        text = json.dumps(answer, sort_keys=True)
        events.append(row("vqa", "assistant", text, TIMES[frame], camera))
    return {"pairs": pairs, "persistent": [], "events": events}


def valid_files() -> dict:
    starts, labels = [0, 12, 25], ["reach the puck", "lift the puck", "place the puck"]
    ends = [*starts[1:], LENGTH]
    plan = {
        "task": {"text": "Pick and place a puck", "source": "dataset"},
        "subtasks": [
            {
                "start_frame": a,
                "end_frame": b,
                "start_s": TIMES[a],
                "end_s": TIMES[b] if b < LENGTH else 4.0,
                "label": label,
            }
            for a, b, label in zip(starts, ends, labels, strict=True)
        ],
        "persistent": [
            *(row("task_aug", "user", t, 0.0) for t in ("Pick and place a puck", "Move the puck")),
            *(
                row("subtask", "assistant", t, TIMES[a])
                for a, t in zip(starts, labels, strict=True)
            ),
            *(row("plan", "assistant", f"1. {labels[-1]}", TIMES[a]) for a in starts),
            *(row("memory", "assistant", "I reached the puck.", TIMES[a]) for a in starts[1:]),
        ],
        "events": [],
    }
    interjections = {
        "persistent": [],
        "events": [
            row(None, "assistant", None, 0.0, say="On it."),
            row("interjection", "user", "Now place it, please.", TIMES[25]),
            row(None, "assistant", None, TIMES[25], say="Placing it."),
        ],
    }
    files = {"plan": plan, "interjections": interjections, "vqa": vqa_file()}
    for stage, data in files.items():
        data.update(format=1, stage=stage, dataset="demo", episode_index=3, warnings=[])
        data["provenance"] = {"model": "m", "served_by": "demo", "calls": []}
    return files


def keyframes() -> dict:
    indices = [0, 5, 10, 15, 20, 25, 30, 35, 39]
    cameras = {FRONT: indices, WRIST: indices}
    task = "Pick and place a puck"
    return keyframes_json(
        "demo", 3, task=task, fps=10.0, length=LENGTH, cameras=cameras, size=(224, 160)
    )


def report_of(files: dict, frames: dict | None = None):
    stages = {stage: StageFile.model_validate(data) for stage, data in files.items()}
    file = KeyframesFile.model_validate(frames or keyframes())
    return validate_episode(file.episode(Path("keyframes")), stages, [FRONT, WRIST])


def codes(files: dict, frames: dict | None = None) -> set[str]:
    return {finding.code for finding in report_of(files, frames).errors}


def rows_of(files, stage, style, column="persistent"):
    return [r for r in files[stage][column] if r["style"] == style]


def test_valid_annotations_pass_without_findings():
    report = report_of(valid_files())
    assert report.errors == []
    assert report.warnings == []
    assert report.counts == {
        "subtask": 3,
        "plan": 3,
        "memory": 2,
        "task_aug": 2,
        "interjection": 1,
        "vqa": 10,
        "speech": 2,
    }


def test_rephrasings_are_at_the_first_frame_of_their_task():
    files = valid_files()
    rows_of(files, "plan", "task_aug")[1]["timestamp"] = TIMES[12]
    (warning,) = report_of(files).warnings
    assert warning.code == "task_aug_not_at_start"
    tasks = [{"frame_index": 0, "task": "Pick a puck"}, {"frame_index": 12, "task": "Move it"}]
    assert report_of(files, keyframes() | {"task_starts": tasks}).warnings == []


def test_stages_that_are_off_are_not_missed():
    files = valid_files()
    assert codes({"plan": files["plan"]}) == set()
    assert codes({"vqa": files["vqa"]}) == set()
    assert codes({}) == set()


def test_timestamps_count_as_float32():
    files = valid_files()
    rows_of(files, "plan", "subtask")[1]["timestamp"] = float(np.float32(1.2))
    assert codes(files) == set()


BREAKS = {}


def breaks(code):
    def register(function):
        BREAKS[function.__name__] = (code, function)
        return function

    return register


@breaks("event_not_on_frame")
def event_between_frames(files):
    files["vqa"]["events"][1]["timestamp"] = 0.05


@breaks("event_not_on_frame")
def event_after_the_end(files):
    files["interjections"]["events"].append(row(None, "assistant", None, 4.0, say="Done."))


@breaks("persistent_not_on_frame")
def persistent_between_frames(files):
    rows_of(files, "plan", "task_aug")[1]["timestamp"] = 0.01


@breaks("subtask_first_not_at_start")
def no_subtask_at_first(files):
    rows_of(files, "plan", "subtask")[0]["timestamp"] = TIMES[1]
    files["plan"]["subtasks"][0]["start_frame"] = 1


@breaks("subtask_starts_not_distinct")
def two_subtasks_at_once(files):
    files["plan"]["persistent"].append(row("subtask", "assistant", "wait", TIMES[12]))


@breaks("subtask_none")
def no_subtask_at_all(files):
    kept = [r for r in files["plan"]["persistent"] if r["style"] not in ("subtask", "memory")]
    files["plan"].update(persistent=kept, subtasks=[])


@breaks("subtask_spans_disagree")
def spans_start_elsewhere(files):
    files["plan"]["subtasks"][1]["start_frame"] = 13


@breaks("subtask_spans_not_covering")
def spans_leave_a_gap(files):
    files["plan"]["subtasks"][1]["end_frame"] = 24


@breaks("subtask_spans_not_covering")
def spans_end_early(files):
    files["plan"]["subtasks"][2]["end_frame"] = LENGTH - 1


@breaks("interjection_without_speech")
def interjection_unanswered(files):
    files["interjections"]["events"].pop()


@breaks("interjection_without_plan")
def interjection_unplanned(files):
    files["plan"]["persistent"].remove(rows_of(files, "plan", "plan")[2])


@breaks("interjection_twice")
def interjections_at_once(files):
    files["interjections"]["events"].append(row("interjection", "user", "And now?", TIMES[25]))


@breaks("speech_without_interjection")
def speech_unasked(files):
    files["interjections"]["events"].append(row(None, "assistant", None, TIMES[12], say="Hello."))


@breaks("speech_twice")
def speech_at_once(files):
    files["interjections"]["events"].append(row(None, "assistant", None, 0.0, say="Hello."))


@breaks("speech_form")
def speech_with_content(files):
    files["interjections"]["events"][0]["content"] = "On it."


@breaks("speech_form")
def speech_without_call(files):
    files["interjections"]["events"][0]["tool_calls"] = []


@breaks("speech_form")
def speech_with_two_calls(files):
    files["interjections"]["events"][0]["tool_calls"] *= 2


@breaks("speech_form")
def speech_by_another_tool(files):
    files["interjections"]["events"][0]["tool_calls"][0]["function"]["name"] = "shout"


@breaks("tool_calls_not_allowed")
def subtask_with_call(files):
    call = copy.deepcopy(files["interjections"]["events"][0]["tool_calls"])
    rows_of(files, "plan", "subtask")[0]["tool_calls"] = call


@breaks("memory_not_at_subtask_start")
def memory_in_between(files):
    rows_of(files, "plan", "memory")[0]["timestamp"] = TIMES[13]


@breaks("memory_twice")
def two_memories_at_once(files):
    files["plan"]["persistent"].append(row("memory", "assistant", "I rested.", TIMES[12]))


@breaks("plans_disagree")
def two_plans_at_once(files):
    files["plan"]["persistent"].append(row("plan", "assistant", "1. wait", TIMES[12]))


@breaks("style_unknown")
def unknown_style(files):
    rows_of(files, "plan", "task_aug")[1]["style"] = "subtsk"


@breaks("style_wrong_column")
def persistent_style_as_event(files):
    files["plan"]["events"].append(row("memory", "assistant", "I reached.", TIMES[12]))


@breaks("style_wrong_column")
def event_style_as_persistent(files):
    files["plan"]["persistent"].append(row("interjection", "user", "Go on.", TIMES[12]))


@breaks("style_wrong_column")
def speech_as_persistent(files):
    files["plan"]["persistent"].append(row(None, "assistant", None, 0.0, say="Hello."))


@breaks("style_wrong_role")
def subtask_by_the_user(files):
    rows_of(files, "plan", "subtask")[0]["role"] = "user"


@breaks("style_wrong_role")
def rephrasing_by_the_assistant(files):
    rows_of(files, "plan", "task_aug")[0]["role"] = "assistant"


@breaks("camera_not_allowed")
def subtask_with_camera(files):
    rows_of(files, "plan", "subtask")[0]["camera"] = FRONT


@breaks("camera_missing")
def vqa_without_camera(files):
    for event in files["vqa"]["events"][:2]:
        event["camera"] = None
    files["vqa"]["pairs"].pop(0)


@breaks("camera_unknown")
def trace_of_unknown_camera(files):
    files["vqa"]["events"].append(row("trace", "assistant", "up", 0.0, "observation.images.top"))


@breaks("empty_text")
def empty_subtask(files):
    rows_of(files, "plan", "subtask")[0]["content"] = " \n"


@breaks("empty_text")
def missing_text(files):
    rows_of(files, "plan", "plan")[0]["content"] = None


@breaks("empty_text")
def empty_speech(files):
    call = files["interjections"]["events"][0]["tool_calls"][0]
    call["function"]["arguments"]["text"] = ""


@breaks("empty_text")
def empty_span_label(files):
    files["plan"]["subtasks"][0]["label"] = ""


@breaks("vqa_question_empty")
def empty_question(files):
    files["vqa"]["events"][0]["content"] = "  "
    files["vqa"]["pairs"][0]["question"] = "  "


@breaks("vqa_pair_twice")
def two_questions_on_one_frame(files):
    files["vqa"]["events"] += copy.deepcopy(files["vqa"]["events"][:2])


@breaks("vqa_unpaired")
def question_without_answer(files):
    del files["vqa"]["events"][1]


@breaks("vqa_unpaired")
def answer_without_question(files):
    del files["vqa"]["events"][0]


@breaks("vqa_pairs_disagree")
def pair_unlisted(files):
    files["vqa"]["pairs"].pop(0)


@breaks("vqa_pairs_disagree")
def pair_without_rows(files):
    del files["vqa"]["events"][:2]


@breaks("vqa_pairs_disagree")
def rows_edited_alone(files):
    files["vqa"]["events"][0]["content"] = "Another question?"


@breaks("vqa_frame_not_decoded")
def frame_never_seen(files):
    for event in files["vqa"]["events"][:2]:
        event["timestamp"] = TIMES[7]
    files["vqa"]["pairs"][0]["frame_index"] = 7


@breaks("vqa_answer_not_json")
def answer_in_words(files):
    files["vqa"]["events"][1]["content"] = "there are two"


@breaks("vqa_answer_not_json")
def answer_is_a_list(files):
    files["vqa"]["events"][1]["content"] = "[1, 2]"


@breaks("vqa_keys_not_sorted")
def keys_in_disorder(files):
    answer = dict(reversed(VALID_ANSWERS["count"].items()))
    files["vqa"]["events"][5]["content"] = json.dumps(answer)


@breaks("vqa_type_unknown")
def unknown_question_type(files):
    files["vqa"]["pairs"][0]["type"] = "color"


@breaks("vqa_answer_type")
def answer_of_another_type(files):
    files["vqa"]["pairs"][0]["type"] = "count"


@pytest.mark.parametrize("name", BREAKS)
def test_each_broken_rule_gives_exactly_its_code(name):
    code, function = BREAKS[name]
    files = valid_files()
    function(files)
    assert codes(files) == {code}


BOX = {"bbox": [10, 20, 60, 90], "bbox_format": "xyxy", "label": "puck"}


@pytest.mark.parametrize(
    ("kind", "answer", "code"),
    [
        ("bbox", {"detections": [BOX | {"bbox": [60, 20, 10, 90]}]}, "vqa_box_not_ordered"),
        ("bbox", {"detections": [BOX | {"bbox": [10, 90, 60, 20]}]}, "vqa_box_not_ordered"),
        ("bbox", {"detections": [BOX | {"bbox": [10, 20, 10, 90]}]}, "vqa_box_empty"),
        ("bbox", {"detections": [BOX | {"bbox": [-1, 20, 10, 90]}]}, "vqa_box_outside"),
        ("bbox", {"detections": [BOX | {"bbox": [10, 20, 225, 90]}]}, "vqa_box_outside"),
        ("bbox", {"detections": [BOX | {"bbox": [10, 20, 60, 161]}]}, "vqa_box_outside"),
        ("bbox", {"detections": [BOX, BOX | {"bbox": [0, 0, 0, 9]}]}, "vqa_box_empty"),
        ("bbox", {"detections": [BOX | {"bbox": [10, 20, 60]}]}, "vqa_answer_type"),
        ("bbox", {"detections": [BOX | {"bbox": ["1", 20, 60, 90]}]}, "vqa_answer_type"),
        ("bbox", {"detections": [BOX | {"bbox_format": "xywh"}]}, "vqa_answer_type"),
        ("bbox", {"detections": [BOX | {"label": ""}]}, "empty_text"),
        ("bbox", {"detections": []}, "vqa_answer_type"),
        (
            "bbox",
            {"detections": [BOX | {"bbox": [10, 20, float("nan"), 90]}]},
            "vqa_number_not_finite",
        ),
        ("keypoint", VALID_ANSWERS["keypoint"] | {"point": [225, 1]}, "vqa_point_outside"),
        ("keypoint", VALID_ANSWERS["keypoint"] | {"point": [1, -0.5]}, "vqa_point_outside"),
        (
            "keypoint",
            VALID_ANSWERS["keypoint"] | {"point": [1, float("inf")]},
            "vqa_number_not_finite",
        ),
        ("keypoint", VALID_ANSWERS["keypoint"] | {"point_format": "yx"}, "vqa_answer_type"),
        ("count", {"count": -1, "label": "pucks"}, "vqa_count_not_whole"),
        ("count", {"count": 1.5, "label": "pucks"}, "vqa_count_not_whole"),
        ("count", {"count": True, "label": "pucks"}, "vqa_count_not_whole"),
        ("count", {"count": "2", "label": "pucks"}, "vqa_count_not_whole"),
        ("count", {"count": float("inf"), "label": "pucks"}, "vqa_number_not_finite"),
        ("count", {"count": 2, "label": "pucks", "extra": 1}, "vqa_answer_type"),
        ("count", {"count": 2, "label": "pucks", "note": ""}, "empty_text"),
        ("attribute", {"attribute": "color", "label": "puck", "value": ""}, "empty_text"),
        ("attribute", {"attribute": "color", "label": "puck"}, "vqa_answer_type"),
        ("spatial", VALID_ANSWERS["spatial"] | {"relation": "behind"}, "vqa_relation_unknown"),
        ("spatial", VALID_ANSWERS["spatial"] | {"subject": 3}, "vqa_answer_type"),
    ],
)
def test_each_wrong_answer_gives_exactly_its_code(kind, answer, code):
    files = valid_files()
    number = list(VALID_ANSWERS).index(kind)
    files["vqa"]["pairs"][number]["answer"] = answer
    files["vqa"]["events"][2 * number + 1]["content"] = json.dumps(answer, sort_keys=True)
    assert codes(files) == {code}


@pytest.mark.parametrize("edge", [[0, 0, 224, 160], [223.5, 159.5, 224, 160]])
def test_boxes_may_touch_the_frames_border(edge):
    files = valid_files()
    answer = {"detections": [BOX | {"bbox": edge}]}
    files["vqa"]["pairs"][0]["answer"] = answer
    files["vqa"]["events"][1]["content"] = json.dumps(answer, sort_keys=True)
    assert codes(files) == set()


def test_a_file_of_another_episode_is_an_error():
    files = valid_files()
    files["vqa"]["episode_index"] = 2
    assert codes(files) == {"wrong_episode"}


def test_a_dataset_without_camera_may_have_no_subtasks():
    files = valid_files()
    frames = keyframes() | {"cameras": {}, "keyframes": {}}
    plan = files["plan"]
    kept = [r for r in plan["persistent"] if r["style"] == "task_aug"]
    plan.update(persistent=kept, subtasks=[], warnings=["no camera: no subtasks"])
    report = report_of({"plan": plan}, frames)
    assert report.errors == []
    assert {finding.code for finding in report.warnings} == {"subtask_none", "stage_warning"}


def test_findings_name_their_place():
    files = valid_files()
    files["vqa"]["events"][3]["timestamp"] = 1.05
    report = report_of(files)
    finding = next(f for f in report.errors if f.code == "event_not_on_frame")
    assert finding.where == "vqa event 3"
    assert "1.05" in finding.message
    assert "ERROR event_not_on_frame at vqa event 3" in report.as_text()


def write_inputs(folder: Path, files: dict) -> dict[str, str]:
    (folder / "keyframes").mkdir()
    (folder / "keyframes/keyframes.json").write_text(json.dumps(keyframes()))
    paths = {"keyframes": str(folder / "keyframes")}
    for stage, data in files.items():
        paths[stage] = str(folder / f"{stage}.json")
        Path(paths[stage]).write_text(data if isinstance(data, str) else json.dumps(data))
    return paths


def run_script(tmp_path: Path, files: dict) -> tuple[Path, Path, SimpleNamespace]:
    """The script's functions on real files; returns the outputs' paths and its namespace."""
    paths = write_inputs(tmp_path, files)
    script = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
    stages = {stage: Path(path) for stage, path in paths.items() if stage != "keyframes"}
    report = script.make_report(Path(paths["keyframes"]), stages, [FRONT, WRIST])
    out_json, out_text = tmp_path / "out.json", tmp_path / "out.txt"
    script.write_report(report, out_json, out_text)
    return out_json, out_text, script


def test_the_script_writes_the_report_in_both_forms(tmp_path):
    out_json, out_text, _ = run_script(tmp_path, valid_files())
    report = json.loads(out_json.read_text())
    assert (report["format"], report["episode_index"]) == (1, 3)
    assert report["errors"] == report["warnings"] == []
    assert report["counts"]["speech"] == 2
    assert out_text.read_text().startswith("Episode 3: 0 errors, 0 warnings")


def test_an_episode_with_errors_fails_and_prints_all_findings(tmp_path, capsys):
    files = valid_files()
    unknown_style(files)
    empty_subtask(files)
    with pytest.raises(CuesheetError, match=r"episode 3: .*1 more"):
        run_script(tmp_path, files)
    printed = capsys.readouterr().out
    assert "style_unknown" in printed
    assert "empty_text" in printed
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[: len(text) // 2], "not valid JSON"),
        (lambda text: text.replace('"role"', '"rule"', 1), r"persistent\[0\]\.role"),
        (lambda text: text.replace('"timestamp": 0.0', '"timestamp": NaN', 1), "finite"),
        (
            lambda text: text.replace('"stage": "plan"', '"stage": "vqa"'),
            "belongs to the stage 'vqa'",
        ),
        (lambda text: "[]", "the file"),
    ],
)
def test_a_damaged_annotation_file_is_a_clear_error(tmp_path, change, words):
    path = tmp_path / "plan.json"
    path.write_text(change(json.dumps(valid_files()["plan"])))
    with pytest.raises(CuesheetError, match=words):
        read_stage_file(path, "plan")
    (tmp_path / "job").mkdir()
    files = valid_files() | {"plan": path.read_text()}
    with pytest.raises(CuesheetError, match="stage_file at plan"):
        run_script(tmp_path / "job", files)
