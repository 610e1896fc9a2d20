"""The card of an uploaded dataset: what was added, how, and the card of the source."""

import json
import shutil
from pathlib import Path

import pytest

from cuesheet.dataset.metadata import read_dataset
from cuesheet.report.card import make_card

SUMMARY = {
    "episodes": {"annotated": 3, "total": 4},
    "rows": {"subtask": 12, "vqa": 40},
    "people": {"corrected": [1, 2], "good": [], "bad": [3]},
    "models": [{"name": "Qwen/Qwen3-VL-8B-Instruct", "served_by": "x"}],
    "calls": {"total": 1234, "retried": 5, "invalid": 1},
}
SOURCE_CARD = "---\nlicense: mit\ntags:\n- cups\n---\n# Pouring\n\nRecorded in a kitchen.\n"


@pytest.fixture
def card(demo_v3, tmp_path):
    """Return the card for a copy of the demo whose own card is given."""

    def make(own: str | None = None, source: dict | None = None, **changes: object) -> str:
        root = Path(shutil.copytree(demo_v3, tmp_path / "demo", dirs_exist_ok=True))
        (root / "README.md").unlink(missing_ok=True)
        if own is not None:
            (root / "README.md").write_text(own)
        dataset = read_dataset(root, "demo")
        return make_card(dataset, {**SUMMARY, **changes}, tmp_path, source, "user/pouring")

    return make


def test_it_says_how_much_was_added_by_whom(card):
    text = card()
    assert text.startswith("---\ntask_categories:")
    assert "# pouring\n" in text
    assert "3 of 4 episodes of format v3.0, 10 frames per second." in text
    assert "| subtask | 12 |" in text
    assert "2 episodes were corrected by people, 1 episode was judged bad" in text
    assert "- `Qwen/Qwen3-VL-8B-Instruct`" in text
    assert "1,234 calls, of which 5 were retried and 1 invalid." in text


def test_the_demo_model_is_not_taken_for_a_language_model(card):
    model = {"name": "cuesheet-demo-1", "served_by": "cuesheet-demo"}
    assert "not a language model" in card(models=[model])


def test_license_and_text_of_the_source_are_kept_below_the_new_card(card):
    text = card(SOURCE_CARD, {"dataset": "user/source", "commit": "abc"})
    assert "license: mit" in text.split("---")[1]
    assert "cups" not in text.split("---")[1]
    assert "`user/source`, commit `abc`." in text
    own = text.partition("## Card of the source")[2]
    # Its headings are below those of the new card.
    assert "### Pouring" in own
    assert "Recorded in a kitchen." in own


def test_prompts_and_sampling_are_those_of_the_stage_files(card, tmp_path):
    head = {"format": 1, "dataset": "demo", "episode_index": 0, "stage": "plan"}
    provenance = {
        "prompts": {"plan_segment": "0123456789abcdef" * 4},
        "sampling": {"temperature": 0.2, "seed": None},
    }
    plan = {**head, "persistent": [], "events": [], "subtasks": [], "provenance": provenance}
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "000000.json").write_text(json.dumps(plan))
    text = card()
    assert "| `plan_segment` | `0123456789abcdef` |" in text
    assert "Sampling: temperature 0.2." in text
