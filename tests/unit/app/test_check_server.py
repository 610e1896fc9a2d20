"""`cuesheet check-server`: the findings about a server, and its exit status."""

import itertools
from functools import partial
from types import SimpleNamespace

import yaml
from chat_server import completion, refusal, serving
from dialects import DIALECTS, plain

from cuesheet.app import cli, throughput
from cuesheet.app.check_server import check
from cuesheet.config.load import load_config


async def findings(behave, **changes):
    """Return exit status and findings by name for a server that needs no key."""
    lines = []
    model = changes.pop("model", "Qwen/Qwen3-VL-8B-Instruct")
    listed = changes.pop("listed", None)
    async with serving(behave, key=None, model=model, listed=listed) as server:
        vlm = {"serve": "external", "model": model, "base_urls": [server.url], **changes}
        status = await check(load_config({"vlm": vlm}), lines.append)
    found = dict(line.strip().split(":", 1) for line in lines[1:])
    return status, {name: text.strip() for name, text in found.items()}


async def test_a_server_as_the_api_says_has_no_adjustments():
    status, found = await findings(lambda body, n: plain(body))
    assert status == 0
    assert found["structured output"] == "response_format is accepted"
    assert found["parameters"] == "all are accepted"
    assert found["images"].startswith("4 per request are accepted")
    assert found["coordinates"].startswith("thousandths: the model name Qwen/Qwen3-VL-8B-Instruct")
    assert found["latency"].endswith("s for a small request")


async def test_what_a_server_rejects_is_listed():
    dialect = DIALECTS["openai"]
    _, found = await findings(lambda body, n: dialect.behave(body), model=dialect.model)
    assert found["parameters"] == "; ".join(dialect.learned)
    dialect = DIALECTS["anthropic"]
    _, found = await findings(lambda body, n: dialect.behave(body), model=dialect.model)
    assert found["structured output"] == "in the prompt"


async def test_an_image_limit_is_a_finding_with_the_setting():
    def one_image(body, number):
        content = body["messages"][-1]["content"]
        if sum(part["type"] == "image_url" for part in content) > 1:
            return refusal(400, "At most 1 image(s) may be provided in one prompt.")
        return plain(body)

    status, found = await findings(one_image)
    assert status == 0
    assert "plan.frames.max_frames_per_call to 20" in found["images"]


async def test_the_root_of_a_served_name_gives_the_coordinate_convention():
    listed = [{"id": "robots", "root": "Qwen/Qwen2.5-VL-7B-Instruct"}]
    _, found = await findings(lambda body, n: plain(body), model="robots", listed=listed)
    assert found["model"] == "robots (Qwen/Qwen2.5-VL-7B-Instruct)"
    assert found["coordinates"].startswith("resized_pixels: the server's model Qwen/Qwen2.5-VL-7B")


async def test_a_reply_of_another_form_is_a_finding():
    status, found = await findings(lambda body, n: completion("red"))
    assert status == 0
    assert "not of the requested form" in found["structured output"]


async def test_a_server_that_cannot_be_used_gives_exit_status_1():
    status, found = await findings(lambda body, n: refusal(403, "no access to this model"))
    assert status == 1
    assert "no access to this model" in found["ERROR"]


async def test_the_measured_throughput_is_printed_as_settings(monkeypatch):
    def behave(body, number):
        return plain(body) | {"usage": {"prompt_tokens": 40, "completion_tokens": 4}}

    # The clock advances by 20 s per reading, so a few requests use up the time limit.
    clock = SimpleNamespace(monotonic=partial(next, itertools.count(0.0, 20.0)))
    monkeypatch.setattr(throughput, "time", clock)
    monkeypatch.setattr(throughput, "measure", partial(throughput.measure, total_s=600.0))
    lines = []
    async with serving(behave, key=None, model="m") as server:
        vlm = {"serve": "external", "model": "m", "base_urls": [server.url], "concurrency": 1}
        assert await check(load_config({"vlm": vlm}), lines.append, throughput=True) == 0
    settings = yaml.safe_load(lines[-1].partition("Settings for the estimate:")[2])
    assert settings["vlm"]["throughput"].keys() == {"input", "output"}
    assert min(settings["vlm"]["throughput"].values()) > 0


def test_without_a_server_and_with_a_wrong_file_the_command_says_so(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("vlm: {serve: replay, model: m}")
    assert cli.main(["check-server", str(config)]) == 0
    assert "needs no server" in capsys.readouterr().out
    config.write_text("vlm: {serve: externl}")
    assert cli.main(["check-server", str(config)]) == 1
    assert "vlm.serve" in capsys.readouterr().err
    assert cli.main(["check-server", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml does not exist" in capsys.readouterr().err


def test_the_given_settings_override_those_of_the_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("vlm: {serve: replay, model: m}")
    assert cli.main(["check-server"]) == 0
    assert "needs no server" in capsys.readouterr().out
    (tmp_path / "mine.yaml").write_text("vlm: {model: other}")
    assert cli.main(["check-server", "mine.yaml"]) == 0
    assert "needs no server" in capsys.readouterr().out


def test_a_server_that_the_run_starts_is_started_and_checked(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("vlm: {serve: demo}")
    assert cli.main(["check-server", str(config)]) == 0
    assert "listed models:      cuesheet-demo-1" in capsys.readouterr().out
