"""The configuration: defaults, accepted values, and error messages."""

from pathlib import Path

import pytest
import yaml
from snakemake.io import PeriodicityDetector

from cuesheet.config.load import load_config
from cuesheet.errors import CuesheetError
from cuesheet.text import as_ranges, did_you_mean
from cuesheet.workflow.checks import check_cameras, check_episodes, check_folder


def message_of(text: str) -> str:
    with pytest.raises(CuesheetError) as caught:
        load_config(yaml.safe_load(text))
    return str(caught.value)


def test_an_empty_configuration_gives_the_documented_defaults():
    config = load_config({})
    assert config.dataset == "data/demo_v3"
    assert config.episodes is None
    assert config.vlm.serve == "demo"
    assert config.keyframes.per_second == 2.0
    frames = config.plan.frames
    assert (frames.columns, frames.per_sheet, frames.tile_width) == (5, 20, 224)
    assert (frames.mode, frames.max_frames_per_call) == ("contact_sheets", 60)
    assert (config.plan.shortest_s, config.plan.max_subtasks) == (0.5, None)
    assert (config.plan.derive_task, config.plan.describe_first) == ("if_short", True)
    rephrasings = config.plan.rephrasings
    assert (rephrasings.mode, rephrasings.count) == ("free", 10)
    axes = ("synonym", "omit_arm", "omit_orientation", "omit_grasp", "combined")
    assert [getattr(rephrasings, axis) for axis in axes] == [3, 3, 2, 2, 2]
    assert config.interjections.max_per_episode == 3
    assert config.interjections.not_before_s == 2.0
    assert (config.vqa.hz, config.vqa.frames, config.vqa.cameras) == (1.0, 1, "all")


def test_nothing_at_all_and_an_emptied_section_mean_the_defaults():
    assert load_config(None) == load_config({"plan": None, "vlm": {"sampling": None}})


@pytest.mark.parametrize(
    ("written", "chosen"),
    [
        ("[0, 3, 5-9]", [0, 3, 5, 6, 7, 8, 9]),
        ("3", [3]),
        ("0-4", [0, 1, 2, 3, 4]),
        ("0,2", [0, 2]),
        ("[2, 0-2, 1]", [0, 1, 2]),
        ("all", None),
        ("null", None),
    ],
)
def test_episodes_are_numbers_and_ranges(written, chosen):
    assert load_config(yaml.safe_load(f"episodes: {written}")).episodes == chosen


def test_episodes_from_the_command_line_are_text_and_mean_the_same():
    # Snakemake reads `--config episodes=[0,3,5-9]` without YAML's types.
    assert load_config({"episodes": ["0", "3", "5-9"]}).episodes == [0, 3, 5, 6, 7, 8, 9]


def test_nested_values_from_the_command_line_get_their_types():
    config = load_config(
        {
            "plan": {"enabled": "false", "max_subtasks": "4"},
            "interjections": {"enabled": "false"},
            "vlm": {
                "model": "null",
                "sampling": {"chat_template_kwargs": {"enable_thinking": "false", "effort": "x"}},
            },
        }
    )
    assert config.plan.enabled is False
    assert config.plan.max_subtasks == 4
    assert config.vlm.model is None
    assert config.vlm.sampling.chat_template_kwargs == {"enable_thinking": False, "effort": "x"}


def test_off_without_quotes_is_the_word_and_not_false():
    config = load_config(yaml.safe_load("plan: {derive_task: off, rephrasings: {mode: off}}"))
    assert (config.plan.derive_task, config.plan.rephrasings.mode) == ("off", "off")


def test_a_dataset_is_called_like_its_folder():
    for given in ("/data/pour", "/data/pour/", ["/data/pour"]):
        assert list(load_config({"dataset": given}).dataset_entries()) == ["pour"]


def test_an_entry_takes_the_top_level_settings_it_does_not_set():
    config = load_config(
        {
            "dataset": {
                "a": "/x",
                "b": {"path": "/y", "episodes": "7", "default_camera": "top", "cameras": ["top"]},
            },
            "episodes": [1, 2],
            "default_camera": "front",
        }
    )
    entries = config.dataset_entries()
    assert (entries["a"].path, entries["a"].episodes) == ("/x", [1, 2])
    assert (entries["b"].path, entries["b"].episodes) == ("/y", [7])
    assert [entry.default_camera for entry in entries.values()] == ["front", "top"]
    assert [entry.cameras for entry in entries.values()] == ["all", ["top"]]
    assert config.dataset["b"].episodes == [7]
    assert config.dataset["a"] == "/x"


MISTAKES = [
    # a name
    ("planer: {}", "planer: there is no such key; did you mean plan?"),
    ("plan: {max_subtask: 3}", "plan.max_subtask: there is no such key; did you mean max_subtasks"),
    ("plan: {max-subtasks: 3}", "did you mean max_subtasks?"),
    ("max_subtasks: 3", "max_subtasks: there is no such key here; it exists as plan.max_subtasks"),
    ("plan.max_subtasks: 3", "keys are nested: plan: {max_subtasks: ...}"),
    ("plan: {max_tokens: 9}", "plan.max_tokens: there is no such key here; it exists as vlm.sam"),
    ("xyzzy: 3", "the top level has dataset, episodes,"),
    ("media: {xyzzy: 3}", "the section media has clip_codec, clip_copy, clip_crf, clip_preset"),
    ("1: 2", "1: there is no such key"),
    ("vlm: {api_key: hidden}", "vlm.api_key: there is no such key; did you mean api_key_env?"),
    ("dataset: {x: {pth: a}}", "dataset.x.pth: there is no such key; did you mean path?"),
    # a word of several
    ("keyframes: {decoder: ffmpg}", "found 'ffmpg', expected one of ffmpeg, pyav, torchcodec; did"),
    ("keyframes: {decoder: ffmpg}", "did you mean ffmpeg?"),
    ("vlm: {serve: extrnal}", "did you mean external?"),
    ("vqa: {cameras: defualt}", "all, default or a list of camera keys; did you mean default?"),
    ("vqa: {types: [bbox, cuont]}", "vqa.types[1]: found 'cuont', expected one of bbox,"),
    ("vqa: {types: bbox}", "did you mean [bbox]?"),
    # a type or a range
    (
        "plan: {max_subtasks: 0}",
        "plan.max_subtasks: found 0, expected a whole number or null, 1 to 64",
    ),
    ("plan: {max_subtasks: many}", "plan.max_subtasks: found 'many', expected a whole number"),
    ("seed: 1.5", "seed: found 1.5, expected a whole number, 0 or more"),
    ("seed: true", "seed: found true, expected a whole number"),
    ("vlm: {serve: offline}", "vlm.serve: the value offline is now called demo; write demo"),
    ("keyframes: {per_second: 0}", "found 0, expected a number, above 0 and at most 1000"),
    ("keyframes: {per_second: yes}", "found true, expected a number"),
    ("vlm: {timeout_s: .inf}", "vlm.timeout_s: found inf, expected a number, above 0"),
    ("vlm: {sampling: {temperature: .nan}}", "vlm.sampling.temperature: found nan, expected a num"),
    ("plan: {enabled: maybe}", "plan.enabled: found 'maybe', expected true or false"),
    ("plan: 5", "plan: found 5, expected a section with enabled,"),
    ("plan: {frames: [1]}", "plan.frames: found [1], expected a section with mode,"),
    ("vlm: {sampling: {chat_template_kwargs: 3}}", "found 3, expected a mapping or null"),
    ("vlm: {cache_dir: null}", "vlm.cache_dir: found nothing, expected a text"),
    # values of several kinds
    ("vqa: {cameras: front}", "vqa.cameras: found 'front', expected all, default or a list of cam"),
    ("vqa: {cameras: front}", "for one write [front]"),
    ("vqa: {cameras: []}", "vqa.cameras: found an empty list"),
    ("vqa: {cameras: [1]}", "vqa.cameras[0]: found 1, expected a text"),
    ("vlm: {base_urls: http://x/v1}", "expected a list of texts; for one write [http://x/v1]"),
    ("dataset: 3", "dataset: found 3, expected a folder, a list of folders, or names with folders"),
    ("dataset: null", "dataset: found nothing, expected a folder"),
    ("dataset: []", "dataset: found an empty list, expected a folder"),
    ("dataset: {}", "dataset: found an empty mapping, expected a folder"),
    ("dataset: [a, 3]", "dataset[1]: found 3, expected a folder"),
    ("dataset: {path: a}", "name the dataset: {my_name: {path: ...}}"),
    ("dataset: {x: 3}", "dataset.x: found 3, expected a folder, or a section with path, episodes"),
    ("dataset: {x: {episodes: 1}}", "dataset.x.path: the key is missing, expected a text"),
    ("dataset: {x: {path: a, episodes: 3-1}}", "dataset.x.episodes: the range '3-1' ends before"),
    ("dataset: {3: a}", "dataset.3: the name is 3, expected text; put it in quotes"),
    ("dataset: {a b: x}", "the name 'a b' is not usable as a folder"),
    (
        f"dataset: /data/{'d' * 200}",
        f"the name '{'d' * 37}...' ends with 'd' 200 times in a row; Snakemake accepts fewer than "
        "20. Give the dataset another name: {my_name: path}",
    ),
    ("dataset: [a/x, b/x]", "a/x and b/x would both be called 'x'; give them names"),
    ("episodes: [0, x]", "episodes: 'x' is neither an episode number nor a range"),
    ("episodes: 5-2", "episodes: the range '5-2' ends before it starts; write 2-5"),
    ("episodes: []", "episodes: the list is empty"),
    ("episodes: -1", "episodes: '-1' is neither an episode number nor a range"),
    ("episodes: 0-99999999999", "beyond 10000000, the largest episode number"),
    # settings that do not go together
    ("vlm: {model: some-model}", "vlm: serve is demo, which has its own model"),
    (
        "vlm: {serve: external, model: m, base_urls: ['https://user:secret@host/v1']}",
        "a URL holds a name or a password; use api_key_env or api_key_file",
    ),
    ("vlm: {serve: external}", "vlm: serve is external but base_urls is empty"),
    ("vlm: {serve: replay}", "vlm: serve is replay but model is not set"),
    (
        "vlm: {serve: replay, model: m, base_urls: ['http://127.0.0.1:8000/v1']}",
        "serve is replay, which sends no requests",
    ),
    (
        "vlm: {serve: external, base_urls: [localhost:80]}",
        "'localhost:80' does not begin with",
    ),
    ("vlm: {api_key_env: A, api_key_file: b}", "both api_key_env and api_key_file are set"),
    ("plan: {enabled: false}", "interjections.enabled is true but plan.enabled is false"),
]


@pytest.mark.parametrize(("text", "says"), MISTAKES, ids=[text for text, _ in MISTAKES])
def test_a_user_error_is_one_plain_line(text, says):
    message = message_of(text)
    assert says in message
    assert message.startswith("config: ")
    assert len(message.splitlines()) == 1
    for jargon in ("pydantic", "http://errors", "Input should", "validation error", "literal["):
        assert jargon not in message


def test_all_errors_are_reported_at_once_in_one_line_each():
    lines = message_of("plan: {describe_frist: true}\nvlm: {replicas: 0}\nseed: -1").splitlines()
    keys = [line.split(": ")[1] for line in lines]
    assert sorted(keys) == ["plan.describe_frist", "seed", "vlm.replicas"]


def test_a_key_in_place_of_its_variable_is_not_repeated():
    message = message_of("vlm: {api_key_env: sk-secret-123}")
    assert "environment variable" in message
    assert "secret" not in message


def test_a_wrong_camera_is_named_with_the_nearest():
    known = ["observation.images.front", "observation.images.wrist"]
    check_cameras("vqa.cameras", known, known)
    with pytest.raises(CuesheetError) as caught:
        check_cameras("vqa.cameras", ["front", "observation.images.wirst", "zz"], known)
    first, second, third = str(caught.value).splitlines()
    assert "vqa.cameras: the dataset has no camera front; did you mean" in first
    assert "did you mean observation.images.wrist?" in second
    assert "no camera zz; it has observation.images.front, observation.images.wrist" in third


def test_the_error_says_that_a_dataset_has_no_cameras():
    with pytest.raises(CuesheetError, match="it has no camera at all"):
        check_cameras("default_camera", ["front"], [])


def test_the_error_says_that_a_camera_is_left_out():
    with pytest.raises(CuesheetError, match=r"wrist is left out: .* in use: front"):
        check_cameras("default_camera", ["wrist"], ["front"], ["wrist"])


def test_a_wrong_episode_is_named_with_what_there_is():
    check_episodes("demo", [0, 7], range(8))
    with pytest.raises(CuesheetError) as caught:
        check_episodes("demo", [1, 12, 15, 16], range(8))
    assert str(caught.value) == (
        "config: episodes: demo has no episodes 12, 15-16; it has 0-7, the nearest is 7"
    )
    with pytest.raises(CuesheetError, match="no episode 4; it has 0, 2, 6, the nearest is 2"):
        check_episodes("demo", [4], {0, 2, 6})
    with pytest.raises(CuesheetError, match="no episodes at all"):
        check_episodes("demo", [4], [])


def test_a_missing_folder_is_named_with_the_nearest(tmp_path: Path):
    (tmp_path / "pour_water").mkdir()
    check_folder("dataset", tmp_path / "pour_water")
    with pytest.raises(CuesheetError) as caught:
        check_folder("dataset", tmp_path / "pour_watr")
    assert str(caught.value).endswith(f"; did you mean {tmp_path / 'pour_water'}?")


def test_ranges_are_written_the_way_they_are_read():
    assert as_ranges({9, 0, 5, 6, 7, 3}) == "0, 3, 5-7, 9"
    assert as_ranges([]) == ""


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("Bbox", "bbox"), ("key-point", "key_point"), ("wrist", "a.wrist"), ("qqq", None)],
)
def test_nearest_ignores_case_dashes_and_leading_parts(wrong, right):
    assert did_you_mean(wrong, ["bbox", "key_point", "a.wrist", "a.front"]) == right


def test_images_on_a_node_are_not_made_on_another():
    said = message_of("cluster: {scratch: $TMPDIR, media: separate}")
    assert "media: separate decodes keyframes on another" in said
    assert load_config({"cluster": {"scratch": "$TMPDIR"}}).cluster.scratch == "$TMPDIR"


@pytest.mark.parametrize("null", [None, "null", "~"])
def test_null_omits_a_sampling_parameter(null):
    sampling = load_config({"vlm": {"sampling": {"seed": null, "top_p": null}}}).vlm.sampling
    assert (sampling.seed, sampling.top_p, sampling.temperature) == (None, None, 0.2)


@pytest.mark.parametrize(
    "end", ["/chat/completions", "/chat/completions?api-version=1", "/responses/"]
)
def test_the_address_of_one_function_is_not_that_of_a_server(end):
    address = f"https://example.org/v1{end}"
    message = message_of(f"vlm: {{serve: external, model: m, base_urls: ['{address}']}}")
    assert address in message
    assert "leave out the end after the version" in message


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://gpu1:99999/v1", "Port out of range"),
        ("http://gpu1:eight/v1", "Port could not be cast"),
        ("http://gpu1:0/v1", "the port 0"),
        ("http://::1:8000/v1", "written in brackets"),
        ("http://[::1/v1", "Invalid IPv6 URL"),
        ("http://gpu 1:8000/v1", "it has a space"),
        ("http://gpu1:8000/v1/models", "the address of one function"),
    ],
)
def test_a_malformed_address_of_a_server_is_an_error_of_the_settings(url, said):
    vlm = {"serve": "external", "base_urls": [url], "model": "m"}
    with pytest.raises(CuesheetError, match=r"vlm\.base_urls") as caught:
        load_config({"dataset": "d", "vlm": vlm})
    assert said in str(caught.value)


def test_an_address_of_a_server_may_have_spaces_around_it_and_capitals():
    vlm = {"serve": "external", "base_urls": [" HTTP://[::1]:8000/v1 "], "model": "m"}
    found = load_config({"dataset": "d", "vlm": vlm}).vlm.base_urls
    assert found == ["http://[::1]:8000/v1"]


@pytest.mark.parametrize("name", ["run_" + "0" * 19, "run_" + "0" * 20, "ab" * 20, "ab" * 20 + "a"])
def test_the_names_that_snakemake_rejects_are_rejected(name):
    rejected = PeriodicityDetector().is_periodic(name) is not None
    if rejected:
        with pytest.raises(CuesheetError, match="times in a row"):
            load_config({"dataset": f"/data/{name}"}).dataset_entries()
    else:
        assert name in load_config({"dataset": f"/data/{name}"}).dataset_entries()
