import hashlib

import pytest

from cuesheet.config import prompt_files
from cuesheet.errors import CuesheetError
from cuesheet.vlm.prompts import Prompts, check_files


@pytest.mark.parametrize(
    "stage", [prompt_files.PLAN, prompt_files.INTERJECTIONS, prompt_files.VQA, prompt_files.JUDGE]
)
def test_every_prompt_of_a_stage_is_there_and_hashed(repository, stage):
    folder = repository / "config" / "prompts"
    texts = Prompts(folder / f"{name}.md" for name in stage)
    assert tuple(texts.hashes) == stage
    raw = (folder / f"{stage[1]}.md").read_bytes()
    assert texts.hashes[stage[1]] == hashlib.sha256(raw).hexdigest()


def test_no_prompt_file_is_left_unused(repository):
    files = {path.stem for path in (repository / "config" / "prompts").glob("*.md")}
    assert files == set(prompt_files.PROMPT_FILES)


def test_variables_are_filled_in(tmp_path):
    path = tmp_path / "hello.md"
    path.write_text("Task: {{ task }}\n{% if more %}\nmore\n{% endif %}\n")
    assert Prompts([path]).render("hello", task="lift", more=False) == "Task: lift"


def test_an_unknown_variable_names_the_prompt_and_what_it_may_use(tmp_path):
    path = tmp_path / "hello.md"
    path.write_text("{{ taks }}")
    with pytest.raises(CuesheetError, match=r"prompt hello: .*taks.*; it may use task, time_s"):
        Prompts([path]).render("hello", task="lift", time_s=1.0)


@pytest.mark.parametrize("text", ["{% if %}", "{{ task | nofilter }}"])
def test_a_broken_template_names_the_file(tmp_path, text):
    path = tmp_path / "hello.md"
    path.write_text(text)
    for read in (Prompts, check_files):
        with pytest.raises(CuesheetError, match=r"line 1 of .*hello\.md is not a valid Jinja2"):
            read([path])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CuesheetError, match=r"gone\.md cannot be read"):
        Prompts([tmp_path / "gone.md"])


def test_an_empty_prompt_is_refused(tmp_path):
    (tmp_path / "hello.md").write_text(" \n")
    with pytest.raises(CuesheetError, match=r"hello\.md is empty"):
        Prompts([tmp_path / "hello.md"])


def test_the_default_prompts_use_only_documented_variables(repository):
    check_files(sorted((repository / "config" / "prompts").glob("*.md")))


def test_unknown_variables_and_syntax_errors_are_found_before_rendering(tmp_path):
    (tmp_path / "plan_rephrase.md").write_text("{{ taks }} {{ episode }} {{ count }}")
    (tmp_path / "plan_memory.md").write_text("{% for %}")
    (tmp_path / "system.md").write_text(" ")
    with pytest.raises(CuesheetError) as error:
        check_files(sorted(tmp_path.glob("*.md")))
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    assert "line 1 of" in lines[0]
    assert "the variable episode is unknown; it has task, count" in lines[1]
    assert "the variable taks is unknown; did you mean task?" in lines[2]
    assert "system.md is empty" in lines[3]


def test_a_value_that_is_not_documented_cannot_be_passed(repository):
    texts = Prompts([repository / "config" / "prompts" / "plan_rephrase.md"])
    with pytest.raises(ValueError, match="plan_rephrase: secret is not documented"):
        texts.render("plan_rephrase", task="lift", count=1, secret=2)


def test_the_page_documents_every_variable(repository):
    page = (repository / "docs" / "prompts.md").read_text()
    for name, prompt in prompt_files.PROMPT_FILES.items():
        section = page.partition(f"## `{name}.md`")[2].partition("\n## ")[0]
        assert all(f"| `{variable}` |" in section for variable in prompt.variables), name
