import hashlib

import pytest

from cuesheet.errors import CuesheetError
from cuesheet.vlm import prompts
from cuesheet.vlm.prompts import Prompts


@pytest.mark.parametrize("stage", [prompts.PLAN, prompts.INTERJECTIONS, prompts.VQA, prompts.JUDGE])
def test_every_prompt_of_a_stage_is_there_and_hashed(repository, stage):
    folder = repository / "config" / "prompts"
    texts = Prompts(folder / f"{name}.md" for name in stage)
    assert tuple(texts.hashes) == stage
    raw = (folder / f"{stage[1]}.md").read_bytes()
    assert texts.hashes[stage[1]] == hashlib.sha256(raw).hexdigest()


def test_no_prompt_file_is_left_unused(repository):
    used = {*prompts.PLAN, *prompts.INTERJECTIONS, *prompts.VQA, *prompts.JUDGE}
    assert {path.stem for path in (repository / "config" / "prompts").glob("*.md")} == used


def test_variables_are_filled_in(tmp_path):
    path = tmp_path / "hello.md"
    path.write_text("Task: {{ task }}\n{% if more %}\nmore\n{% endif %}\n")
    assert Prompts([path]).render("hello", task="lift", more=False) == "Task: lift"


def test_an_unknown_variable_names_the_prompt_and_what_it_may_use(tmp_path):
    path = tmp_path / "hello.md"
    path.write_text("{{ taks }}")
    with pytest.raises(CuesheetError, match=r"prompt hello: .*taks.*; .* task, time_s"):
        Prompts([path]).render("hello", task="lift", time_s=1.0)


def test_a_broken_template_names_the_file(tmp_path):
    path = tmp_path / "hello.md"
    path.write_text("{% if %}")
    with pytest.raises(CuesheetError, match=r"hello\.md is not a valid Jinja2 template"):
        Prompts([path])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CuesheetError, match=r"gone\.md cannot be read"):
        Prompts([tmp_path / "gone.md"])


def test_an_empty_prompt_is_refused(tmp_path):
    (tmp_path / "hello.md").write_text(" \n")
    with pytest.raises(CuesheetError, match=r"hello\.md is empty"):
        Prompts([tmp_path / "hello.md"])
