"""The estimate of a run, from metadata alone."""

import json
import shutil

import pytest

from cuesheet.annotate.evidence import events_of
from cuesheet.app import estimate_cli
from cuesheet.app.estimate_text import as_line, as_table, short_text
from cuesheet.artifacts.episode import Episode
from cuesheet.artifacts.layout import Layout
from cuesheet.config import prompt_files
from cuesheet.serving.response_cache import ResponseCache, key_of
from cuesheet.vlm.prompts import Prompts
from cuesheet.workflow.estimate import Amount, Estimate, Range, estimate_run
from cuesheet.workflow.load import load_run
from cuesheet.workflow.rehearsed_episode import assume_recording


def estimate(demo_v3, repository, tmp_path, **settings):
    vlm = {"cache_dir": str(tmp_path / "cache"), **settings.pop("vlm", {})}
    run = load_run(
        {"dataset": str(demo_v3), "vlm": vlm, **settings},
        repository,
        results_root=tmp_path / "results",
    )
    (found,) = estimate_run(run)
    return run, found


def test_every_frame_with_a_question_is_one_request(demo_v3, repository, tmp_path):
    _, found = estimate(demo_v3, repository, tmp_path)
    # 17, 13, 17 and 11 s at one question per second and camera: as many as in a run of the demo.
    assert found.stages["vqa"].likely.requests == 58
    assert found.stages["vqa"].low.requests == 58
    assert found.episodes == 4


def test_requests_of_the_plan_are_those_of_the_stage(demo_v3, repository, tmp_path):
    _, found = estimate(demo_v3, repository, tmp_path)
    prompts = found.prompts
    assert prompts["plan_segment"].requests == prompts["plan_describe"].requests == 4
    # Contact sheets of 224 px tiles: no image tokens without images, and the same for both.
    assert prompts["plan_segment"].image_tokens == prompts["plan_describe"].image_tokens > 1000
    assert prompts["plan_rephrase"].image_tokens == 0
    # Episodes with the same task share their rephrasings.
    assert prompts["plan_rephrase"].requests == 3


def test_a_switched_off_stage_costs_nothing(demo_v3, repository, tmp_path):
    _, found = estimate(demo_v3, repository, tmp_path, vqa={"enabled": False})
    assert set(found.stages) == {"plan", "interjections"}
    _, with_vqa = estimate(demo_v3, repository, tmp_path)
    assert found.frames_to_decode <= with_vqa.frames_to_decode


def test_shorter_subtasks_mean_more_requests(demo_v3, repository, tmp_path):
    _, found = estimate(demo_v3, repository, tmp_path)
    plan = found.stages["plan"]
    assert plan.low.requests <= plan.likely.requests < plan.high.requests
    assert plan.low.prompt_tokens < plan.high.prompt_tokens


def test_labels_are_drafted_per_episode_and_made_once_per_task(demo_v3, repository, tmp_path):
    _, without = estimate(demo_v3, repository, tmp_path)
    _, found = estimate(demo_v3, repository, tmp_path, plan={"vocabulary": "auto"})
    # The four episodes have three tasks.
    assert found.prompts["vocabulary_draft"].requests == 4
    assert found.prompts["vocabulary_build"].requests == 3
    assert found.prompts["vocabulary_draft"].image_tokens > 1000
    assert found.stages["vocabulary"].likely.requests == 7
    assert found.total.likely.requests == without.total.likely.requests + 7
    _, fewer = estimate(
        demo_v3, repository, tmp_path, plan={"vocabulary": "auto", "vocabulary_episodes": 1}
    )
    assert fewer.prompts["vocabulary_draft"].requests == 3


def test_an_inspection_is_one_request_per_subtask_and_one_per_episode(
    demo_v3, repository, tmp_path
):
    _, found = estimate(demo_v3, repository, tmp_path, inspect={"enabled": True})
    assert found.prompts["inspect_episode"].requests == 4
    assert found.prompts["inspect_subtask"].requests >= 4
    assert found.stages["inspection"].likely.image_tokens > 0


def test_what_a_person_wrote_is_not_requested(demo_v3, repository, tmp_path):
    folder = tmp_path / "corrections"
    (folder / "demo_v3").mkdir(parents=True)
    correction = {"format": 1, "dataset": "demo_v3", "episode_index": 1}
    correction |= {"rephrasings": ["Move the puck."], "interjections": []}
    (folder / "demo_v3/000001.json").write_text(json.dumps(correction))
    settings = {"episodes": [1], "corrections_dir": str(folder)}
    _, found = estimate(demo_v3, repository, tmp_path, **settings)
    assert not any("rephrase" in prompt for prompt in found.prompts)
    assert found.stages["interjections"].high.requests == 0
    assert found.prompts["plan_segment"].requests == 1


def test_the_table_of_recorded_events_is_counted(demo_v3, repository, tmp_path):
    _, found = estimate(demo_v3, repository, tmp_path)
    _, without = estimate(demo_v3, repository, tmp_path, signals={"enabled": False})
    for prompt in ("plan_describe", "plan_segment"):
        assert found.prompts[prompt].requests == without.prompts[prompt].requests
        added = found.prompts[prompt].text_tokens - without.prompts[prompt].text_tokens
        assert 5 < added / found.prompts[prompt].requests < 200
    changed = {prompt for prompt in found.prompts if "relabel" in prompt}
    assert not changed, "assumed events changed the subtasks"


def test_clips_are_estimated_too(demo_v3, repository, tmp_path):
    frames = {"frames": {"mode": "clip"}}
    _, found = estimate(demo_v3, repository, tmp_path, plan=frames)
    assert found.prompts["plan_segment"].image_tokens > 0


def test_the_longest_and_the_shortest_episode_are_rehearsed(demo_v3, repository, tmp_path):
    _, all_four = estimate(demo_v3, repository, tmp_path)
    single = [estimate(demo_v3, repository, tmp_path, episodes=[n])[1] for n in range(4)]
    asked = sum(one.stages["vqa"].likely.requests for one in single)
    assert asked == all_four.stages["vqa"].likely.requests


def test_the_table_and_the_line_show_the_same_figures(demo_v3, repository, tmp_path):
    prices = {"price": {"input": 1.0, "output": 2.0}, "throughput": {"input": 1e3, "output": 1e2}}
    run, found = estimate(demo_v3, repository, tmp_path, vlm=prices)
    total = found.total.likely
    cost = (total.prompt_tokens + 2 * total.reply_tokens) / 1e6
    hours = (total.prompt_tokens / 1e3 + total.reply_tokens / 1e2) / 3600
    for text in (as_table(found, run), as_line(found, run)):
        assert f"{cost:,.2f} (" in text
        assert f"{hours:,.2f} (" in text
    assert f"{total.requests:,.0f} (" in as_line(found, run)
    assert all(name in as_table(found, run) for name in found.prompts)


def test_one_episode_is_not_called_episodes(demo_v3, repository, tmp_path):
    run, found = estimate(demo_v3, repository, tmp_path, episodes=[1])
    assert "demo_v3: 1 episode to annotate" in as_table(found, run)


def test_a_dataset_that_needs_nothing_says_so():
    nothing = Estimate("demo", 0, 0.0, {"plan": Range()}, {}, 0, 0.0, 0.0, 0.0)
    assert as_line(nothing, None) == "demo: no requests are estimated"
    assert short_text(Range(Amount(1, 2, 3, 4), Amount(), Amount(2, 4, 6, 8))) == (
        "1 (0 to 2) requests, 5 (0 to 10) prompt tokens, 4 (0 to 8) reply tokens"
    )


def test_the_command_reads_a_configuration(demo_v3, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(f"dataset: {demo_v3}\nvqa: {{enabled: false}}\n")
    assert estimate_cli.main(["my.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "demo_v3: 4 episodes to annotate" in shown
    assert "vqa_bbox" not in shown
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [("dataset: [", "my.yaml cannot be read"), ("- a", "not a mapping"), ("datset: x", "datset")],
)
def test_a_wrong_configuration_is_one_line(tmp_path, monkeypatch, capsys, content, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(content)
    assert estimate_cli.main(["my.yaml"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("cuesheet estimate: ")
    assert says in error
    assert "Traceback" not in error


def test_an_image_size_that_metadata_does_not_name_is_assumed_with_a_notice(
    demo_v3, repository, tmp_path
):
    source = tmp_path / "nameless"
    shutil.copytree(demo_v3, source)
    info = json.loads((source / "meta/info.json").read_text())
    for feature in info["features"].values():
        if feature["dtype"] in ("video", "image"):
            feature["shape"] = None
            feature.pop("info", None)
    (source / "meta/info.json").write_text(json.dumps(info))
    _, found = estimate(source, repository, tmp_path)
    assert any("640 x 480" in notice for notice in found.notices)


def test_the_results_folder_is_not_needed(demo_v3, repository, tmp_path):
    estimate(demo_v3, repository, tmp_path)
    assert not Layout(tmp_path / "results" / "demo_v3").folder.exists()


def test_a_finished_inspection_is_not_requested_again(demo_v3, repository, tmp_path):
    off = {"enabled": False}
    settings = {"vqa": off, "interjections": off, "inspect": {"enabled": True}, "episodes": [1]}
    run, found = estimate(demo_v3, repository, tmp_path, **settings)
    assert found.stages["inspection"].likely.requests > 0
    for stage in ("plan", "inspection"):
        names = prompt_files.of_stages([stage])
        hashes = Prompts(repository / f"config/prompts/{name}.md" for name in names).hashes
        provenance = {"model": run.model, "prompts": hashes, "calls": [{"name": "one"}]}
        provenance["sampling"] = run.config.vlm.sampling.model_dump()
        content = {"format": 1, "stage": stage, "dataset": "demo_v3", "episode_index": 1}
        content |= {"provenance": provenance}
        content |= {"persistent": [], "events": []} if stage == "plan" else {}
        path = run.dataset("demo_v3").layout.stage_file(stage, 1)
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
    assert estimate(demo_v3, repository, tmp_path, **settings)[1].episodes == 0


def test_files_of_another_model_are_not_finished(demo_v3, repository, tmp_path):
    off = {"plan": {"enabled": False}, "interjections": {"enabled": False}, "episodes": [1]}
    run, found = estimate(demo_v3, repository, tmp_path, **off)
    assert found.episodes == 1
    names = prompt_files.of_stages(["vqa"])
    provenance = {
        "model": run.model,
        "prompts": Prompts(repository / f"config/prompts/{name}.md" for name in names).hashes,
        "sampling": run.config.vlm.sampling.model_dump(),
        "calls": [{"name": "one"}],
    }
    about = {"format": 1, "stage": "vqa", "dataset": "demo_v3", "episode_index": 1}
    path = run.dataset("demo_v3").layout.stage_file("vqa", 1)
    path.parent.mkdir(parents=True)
    for change, episodes in (({}, 0), ({"model": "another"}, 1), ({"sampling": {}}, 1)):
        content = {**about, "persistent": [], "events": [], "provenance": {**provenance, **change}}
        path.write_text(json.dumps(content))
        assert estimate(demo_v3, repository, tmp_path, **off)[1].episodes == episodes, change


def test_an_estimate_does_not_depend_on_earlier_ones(demo_v3, repository, tmp_path):
    found = [estimate(demo_v3, repository, tmp_path)[1] for _ in range(4)]
    assert all(one == found[0] for one in found)


def cache_responses(tmp_path, run, dataset, stage, episode, count):
    """Put responses to requests of a stage into the cache, as the gateway of a run does."""
    recipes = {dataset.name: run.recipes(dataset)}
    cache = ResponseCache(tmp_path / "cache", recipes)
    reply = {"choices": [{"message": {"content": "{}"}}]}
    for number in range(count):
        request = {"model": run.model, "messages": [{"content": f"{stage} {episode} {number}"}]}
        key = key_of(request)
        cache.put(key, request, reply, {})
        cache.note(f"{dataset.name}/{episode:06d}", stage, key)
    return cache


def test_cached_requests_are_only_counted_as_the_most_that_may_be_sent(
    demo_v3, repository, tmp_path
):
    run, before = estimate(demo_v3, repository, tmp_path)
    cache_responses(tmp_path, run, run.dataset("demo_v3"), "vqa", 0, 10)
    cache = cache_responses(tmp_path, run, run.dataset("demo_v3"), "vqa", 1, 10)
    run, found = estimate(demo_v3, repository, tmp_path)
    assert found.cached.requests == pytest.approx(20)
    assert found.stages["vqa"].likely.requests == pytest.approx(58 - 20)
    assert found.stages["vqa"].low.requests == pytest.approx(58 - 20)
    assert found.stages["vqa"].high == before.stages["vqa"].high
    assert found.stages["plan"] == before.stages["plan"]
    assert "20 responses more from the cache" in as_line(found, run)
    assert "`at most` does" in as_table(found, run)
    # Of a response that was deleted since, the request is sent again.
    next(cache.folder.glob("??/*.json")).unlink()
    _, found = estimate(demo_v3, repository, tmp_path)
    assert found.stages["vqa"].likely.requests == pytest.approx(58 - 19)


@pytest.mark.parametrize(
    "change",
    [
        {"vqa": {"hz": 0.5}},
        {"seed": 5},
        {"keyframes": {"per_second": 4}},
        {"vlm": {"images": {"jpeg_quality": 50}}},
        {"vlm": {"sampling": {"temperature": 0.5}}},
    ],
)
def test_other_settings_make_other_requests(demo_v3, repository, tmp_path, change):
    run, _ = estimate(demo_v3, repository, tmp_path)
    cache_responses(tmp_path, run, run.dataset("demo_v3"), "vqa", 0, 10)
    run, found = estimate(demo_v3, repository, tmp_path, **change)
    assert not found.cached.requests
    # Some requests may still be the same, which only the frames show.
    assert found.may_be_cached
    assert "fewer if the cache has responses" in as_line(found, run)
    assert "fewer than `at least` may be sent" in as_table(found, run)


@pytest.mark.parametrize(("length", "events"), [(46, 3), (75, 5), (102, 5), (6000, 359)])
def test_assumed_events_are_about_as_many_as_robots_record(length, events):
    # The demo and dev_v3 have 4.8 and 5.0 in episodes of 4.6 to 11.2 s: 0.6 per second.
    episode = Episode("demo", 0, "task", 10, [number / 10 for number in range(length)], {})
    assert len(events_of(assume_recording(episode, 5.0))) == events
