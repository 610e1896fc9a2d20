"""The check of the model server before the first job: early, one line, and nothing is lost."""

import shutil

import pytest
from processes import processes_in
from test_terminal import DEAD_SERVER, _lines, _one_line
from workflow_runs import contents

pytestmark = pytest.mark.workflow


def external(counting_server, **changes):
    return {
        **counting_server.vlm,
        **changes,
    }


def test_a_dead_server_ends_a_run_before_anything_is_decoded_or_deleted(
    finished_demo, tmp_path, demo_v3
):
    work = finished_demo.copy_to(tmp_path / "copy")
    results = work.path / "results" / "demo_v3"
    before = contents(results)
    shutil.rmtree(work.path / ".cache")
    work.configure(dataset=str(demo_v3), seed=5, vlm=DEAD_SERVER)
    line = _one_line(work)
    assert line.startswith("Cuesheet: the model server does not answer: 127.0.0.1:9")
    assert "vlm.base_urls" in line
    assert contents(results) == before
    assert processes_in(work.path) == []


def test_a_wrong_model_and_a_missing_key_are_one_line_each(work, demo_v3, counting_server):
    work.configure(dataset=str(demo_v3), vlm=external(counting_server, model="cuesheet-demo-2"))
    line = _one_line(work)
    assert "does not list the model cuesheet-demo-2: did you mean cuesheet-demo-1?" in line
    vlm = external(counting_server, api_key_env="NO_SUCH_KEY")
    work.configure(dataset=str(demo_v3), vlm=vlm)
    assert "the environment variable NO_SUCH_KEY (vlm.api_key_env) is not set" in _one_line(work)
    assert counting_server.checks == counting_server.asked == []
    assert not (work.path / "results").exists()


def test_a_missing_server_program_is_one_line(work, demo_v3):
    managed = {"serve": "managed", "model": "m", "managed": {"command": "/no/server {port}"}}
    work.configure(dataset=str(demo_v3), vlm=managed)
    line = _one_line(work)
    assert "vlm.managed.command: /no/server does not exist on this machine" in line
    assert not (work.path / "results").exists()


def test_only_jobs_that_ask_the_model_need_its_server(work, demo_v3):
    work.configure(dataset=str(demo_v3), episodes=[0], vlm=DEAD_SERVER)
    work.run("media")
    assert list((work.path / "results/demo_v3/clips").rglob("*.mp4"))


def test_one_small_request_is_made_and_a_dead_server_is_a_warning_until_a_request_is_not_cached(
    work, demo_v3, counting_server
):
    off = {"enabled": False}
    settings = {"dataset": str(demo_v3), "interjections": off, "vlm": external(counting_server)}
    work.configure(**settings, episodes=[1])
    work.run()
    assert len(counting_server.checks) == 1
    work.run()  # nothing to be done
    assert len(counting_server.checks) == 1
    shutil.rmtree(work.path / "results")
    counting_server.close()
    done = work.run("--quiet", "all")
    warnings = [line for line in _lines(done.output) if "does not answer" in line]
    assert len(warnings) == 1
    assert "Until a request is not cached, the run works without it" in warnings[0]
    assert work.json("results/demo_v3/summary.json")["episodes"]["annotated"] == 1

    work.configure(**settings, episodes=[1, 2])
    done = work.run("--quiet", "all", check=False)
    assert done.returncode == 1
    assert "the model server does not answer" in done.output
    assert "Traceback" not in done.output
    assert (work.path / "results/demo_v3/plan/000001.json").exists()
    assert processes_in(work.path) == []


def test_a_sharded_run_checks_an_external_server_before_a_shard_is_submitted(
    work, demo_v3, counting_server, monkeypatch
):
    cluster = {"shards": "always", "episodes_per_shard": 1}
    submitted = work.path / "results/demo_v3/shards/run.json"

    def error_of(**changes) -> str:
        vlm = external(counting_server, **changes)
        work.configure(dataset=str(demo_v3), episodes=[0, 1], cluster=cluster, vlm=vlm)
        return _one_line(work)

    line = error_of(base_urls=DEAD_SERVER["base_urls"])
    assert line.startswith("Cuesheet: the model server does not answer: 127.0.0.1:9")
    assert "If only the jobs can reach it, set vlm.check to false" in line
    counting_server.key = "right"
    monkeypatch.setenv("WRONG_KEY", "wrong")
    assert "rejected the API key" in error_of(api_key_env="WRONG_KEY")
    counting_server.key = None
    assert counting_server.checks == counting_server.asked == []
    assert not submitted.exists()
    assert processes_in(work.path) == []

    off = {"enabled": False}
    settings = {"dataset": str(demo_v3), "episodes": [0, 1], "cluster": cluster}
    work.configure(**settings, vqa=off, interjections=off, vlm=external(counting_server))
    work.run("annotations")
    assert len(counting_server.checks) == 3  # of the run, and of its two shards


def test_a_sharded_run_leaves_a_managed_server_to_its_shards(work, demo_v3):
    managed = {"serve": "managed", "model": "m", "managed": {"command": "/no/server {port}"}}
    cluster = {"shards": "always", "episodes_per_shard": 4}
    work.configure(dataset=str(demo_v3), cluster=cluster, vlm=managed)
    done = work.run(check=False)
    assert done.returncode == 1
    said = [line for line in _lines(done.output) if "/no/server does not exist" in line]
    place = "Cuesheet: shard 00000 of demo_v3, on "
    assert [line for line in said if line.startswith(place) and ".." not in line], done.output
