"""Grids of settings: how they are read, and what is said of invalid ones."""

import pytest
import yaml

from cuesheet.app.tune import read_tuning, with_values
from cuesheet.errors import CuesheetError


def tuning(tmp_path, tune, **settings):
    path = tmp_path / "tune.yaml"
    path.write_text(yaml.safe_dump({"dataset": "d", **settings, "tune": tune}))
    return read_tuning(path)


def test_every_combination_of_the_grid_is_a_variant(tmp_path):
    grid = {"plan.second_look": [False, True], "plan.relabel": ["off", "span", "neighbors"]}
    found = tuning(tmp_path, {"grid": grid, "reference": "truth.json"})
    assert len(found.variants) == 6
    assert found.variants[0] == {"plan.second_look": False, "plan.relabel": "off"}
    assert found.variants[-1] == {"plan.second_look": True, "plan.relabel": "neighbors"}
    assert "tune" not in found.settings


def test_values_are_set_by_dotted_keys_and_leave_the_rest():
    settings = {"plan": {"relabel": "off", "memory": False}}
    assert with_values(settings, {"plan.relabel": "span", "seed": 3}) == {
        "plan": {"relabel": "span", "memory": False},
        "seed": 3,
    }
    assert settings["plan"]["relabel"] == "off"


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        (None, "has no section tune with a grid"),
        ({"grid": {}, "reference": "x"}, "has no section tune with a grid"),
        ({"grid": {"seed": [1]}}, r"tune\.reference: expected a file"),
        ({"grid": {"seed": 1}, "reference": "x"}, r"tune\.grid\.seed: expected a list of values"),
        ({"grid": {"seed": [1]}, "reference": "x", "best": 1}, r"tune\.best: there is no such key"),
        (
            {"grid": {"seed": [1]}, "reference": "x", "score": "f1"},
            r"tune\.score: found 'f1', expected one of segment\.0\.1\.f1",
        ),
        (
            {"grid": {"plan.relabels": ["span"]}, "reference": "x"},
            r"plan\.relabels: there is no such key; did you mean relabel",
        ),
        (
            {"grid": {"seed": list(range(201))}, "reference": "x"},
            "has 201 combinations; at most 200",
        ),
    ],
)
def test_an_invalid_grid_is_named_before_anything_runs(tmp_path, tune, message):
    with pytest.raises(CuesheetError, match=message):
        tuning(tmp_path, tune)
