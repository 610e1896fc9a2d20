"""The files that follow from the configuration's models, and the requirement files."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml

from cuesheet.config import generate
from cuesheet.config.describe import descriptions, section_of, settings
from cuesheet.config.load import load_config
from cuesheet.config.models import Config


def described_settings() -> Iterator[tuple[str, str]]:
    """Path and description of every setting."""
    sections = {"": Config}
    for path, field in settings(Config):
        above, _, name = path.rpartition(".")
        if section := section_of(field):
            sections[path] = section
        else:
            yield path, descriptions(sections[above])[name]


@pytest.mark.parametrize("name", sorted(generate.generated()))
def test_a_generated_file_is_what_the_models_give(repository: Path, name: str):
    assert (repository / name).read_text() == generate.generated()[name], "run: cuesheet config"


def test_check_names_the_file_that_drifted_and_the_command(repository, tmp_path, capsys):
    for name, text in generate.generated().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    here = ["--repository", str(tmp_path)]
    assert generate.main([*here, "--check"]) == 0
    (tmp_path / "config/config.yaml").write_text("seed: 1\n")
    assert generate.main([*here, "--check"]) == 1
    said = capsys.readouterr().err
    assert "config/config.yaml" in said
    assert "cuesheet config" in said
    assert "schema" not in said
    assert (tmp_path / "config/config.yaml").read_text() == "seed: 1\n"
    assert generate.main(here) == 0
    assert generate.main([*here, "--check"]) == 0


def test_the_yaml_reads_back_to_the_defaults(repository):
    text = (repository / "config/config.yaml").read_text()
    assert load_config(yaml.safe_load(text)) == Config()


def test_the_yaml_has_every_setting_with_its_description_and_short_lines(repository):
    text = (repository / "config/config.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=config.schema.json\n")
    assert max(map(len, text.splitlines())) <= 100
    values = yaml.safe_load(text)
    comments = " ".join(re.sub(r"^\s*# ", "", line) for line in text.splitlines() if "# " in line)
    for path, _ in settings(Config):
        place = values
        for part in path.split("."):
            assert part in place, f"{path} is not in config.yaml"
            place = place[part]
    for path, description in described_settings():
        assert description, f"{path} has no description"
        assert description.replace("`", "") in comments


def test_the_reference_has_a_row_for_every_setting(repository):
    text = (repository / "docs/configuration.md").read_text()
    for path, field in settings(Config):
        name = path.rpartition(".")[2]
        if section_of(field) is None:
            assert re.search(rf"^\| `{name}` \| .+ \| .+ \| .+ \|$", text, re.MULTILINE), path
        else:
            assert f"# `{path}`\n" in text


@pytest.fixture(scope="module")
def schema(repository: Path) -> dict:
    schema = json.loads((repository / "config/config.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


def valid(schema: dict, values: object) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(values)


def test_the_schema_accepts_the_yaml_and_rejects_a_slip(repository, schema):
    values = yaml.safe_load((repository / "config/config.yaml").read_text())
    assert valid(schema, values)
    misspelled = copy.deepcopy(values)
    misspelled["plan"]["frames"]["colums"] = misspelled["plan"]["frames"].pop("columns")
    assert not valid(schema, misspelled)
    assert not valid(schema, {"keyframes": {"decoder": "ffmpg"}})
    assert not valid(schema, {"plan": {"max_subtasks": 0}})


@pytest.mark.parametrize("given", ["all", None, 3, "3", "0-4", "0,2", [0, 3, "5-9"], ["0", "1-2"]])
def test_the_schema_accepts_episodes_as_they_may_be_written(schema, given):
    load_config({"episodes": given})
    assert valid(schema, {"episodes": given})
    assert valid(schema, {"dataset": {"a": {"path": "x", "episodes": given}}})


@pytest.mark.parametrize("given", [-1, "x", [], [1.5], ["a"], {"a": 1}])
def test_the_schema_rejects_episodes_that_are_none(schema, given):
    assert not valid(schema, {"episodes": given})


def test_the_schema_describes_every_setting(schema):
    for path, description in described_settings():
        *sections, name = path.split(".")
        place = schema
        for section in sections:
            place = place["properties"][section]
            place = schema["$defs"][place["$ref"].rpartition("/")[2]] if "$ref" in place else place
        assert place["properties"][name]["description"] == description
        assert place["additionalProperties"] is False
