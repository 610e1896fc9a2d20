"""Tokens of images by the rules of the model families, and of text by a tokenizer."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from cuesheet.vlm.token_counts import CHARACTERS_PER_TOKEN, token_counter


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        # 644 x 476 px, in squares of 28 px.
        ("Qwen/Qwen2.5-VL-7B-Instruct", (640, 480), 23 * 17),
        ("Qwen/Qwen2.5-VL-7B-Instruct", (28, 28), 4),  # enlarged to 56 x 56 px
        ("Qwen/Qwen3-VL-8B-Instruct", (640, 480), 20 * 15),
        ("Qwen/Qwen3-VL-8B-Instruct", (64, 64), 64),  # enlarged to 256 x 256 px
        ("gpt-4o-2024-11-20", (1024, 1024), 85 + 4 * 170),
        ("gpt-4o-2024-11-20", (2048, 4096), 85 + 6 * 170),
        ("gemini-2.5-flash", (384, 384), 258),
        ("claude-sonnet-4-5", (1000, 1000), 1334),
        ("google/gemma-3-12b-it", (1280, 720), 256),
        ("OpenGVLab/InternVL3-8B", (448, 448), 256),
        ("OpenGVLab/InternVL3-8B", (896, 448), 3 * 256),  # two tiles and the thumbnail
    ],
)
def test_the_tokens_of_an_image_follow_the_family(model, size, tokens):
    assert token_counter(model).image_rule(*size) == tokens


def test_an_unknown_model_is_counted_with_a_notice():
    counter = token_counter("acme/seer-1")
    assert counter.image_rule(280, 280) == 100
    assert "acme/seer-1 are unknown" in counter.notices[0]
    assert f"{CHARACTERS_PER_TOKEN} characters per token" in counter.notices[1]


def test_pixel_limits_of_the_settings_apply():
    counter = token_counter("Qwen/Qwen2.5-VL-7B-Instruct", {"max_pixels": 28 * 28 * 100})
    assert counter.image_rule(2800, 2800) == 100


def test_a_model_folder_gives_its_tokenizer_and_patch_size(tmp_path):
    folder = tmp_path / "qwen2.5-vl-tiny"
    folder.mkdir()
    words = Tokenizer(models.WordLevel({"pick": 0, "up": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(folder / "tokenizer.json"))
    processor = {"patch_size": 16, "merge_size": 2, "min_pixels": 1, "max_pixels": 32 * 32 * 9}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    counter = token_counter(str(folder))
    assert counter.notices == ()
    assert counter.text_rule("pick up the cup") == 4
    assert counter.image_rule(64, 64) == 4
    assert counter.image_rule(640, 640) == 9


def test_a_chat_has_more_tokens_than_its_text():
    counter = token_counter("acme/seer-1")
    assert counter.text("", "") == 13
    assert counter.images([(28, 56), (28, 28)]) == counter.image_rule(28, 56) + 4 + 4


def test_text_without_spaces_is_not_counted_as_english():
    assert token_counter("acme/seer-1").text_rule("把红色的块放进盒子") == 9
