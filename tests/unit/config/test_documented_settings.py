"""The examples in docs/serving.md are valid configurations."""

import re

import pytest
import yaml

from cuesheet.config.load import load_config

PROVIDERS = (
    "OpenAI",
    "Gemini",
    "Anthropic",
    "OpenRouter",
    "Azure OpenAI",
    "LiteLLM",
    "Ollama",
    "LM Studio",
    "llama.cpp",
    "SGLang",
    "TGI",
)


@pytest.fixture
def text(repository) -> str:
    return (repository / "docs/serving.md").read_text()


def test_every_example_is_a_valid_configuration(text):
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 18
    for block in blocks:
        load_config(yaml.safe_load(block))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_has_an_example_with_an_address(text, provider):
    (section,) = re.findall(rf"\n### {re.escape(provider)}\n(.*?)(?=\n##)", text, re.DOTALL)
    (block,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    config = load_config(yaml.safe_load(block))
    assert config.vlm.serve == "external"
    assert config.vlm.base_urls
