"""Reads objects as models write them if no grammar enforces JSON.

Handled: comments, trailing and missing commas, decimal commas, single or typographic quotes,
unquoted keys, escaped punctuation, doubled braces, Python literals, NaN, and JSON inside a JSON
string.
"""

import ast
import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

# The lenient readers are slow, so longer texts are read as strict JSON only.
LONGEST_LENIENT_CHARS = 20_000
_COMMENT = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
# Punctuation that is escaped as in Markdown, which JSON does not have and YAML reads differently.
_ESCAPED = re.compile(r"""\\\\|\\([^\w"'\\/]|_)""")
_DECIMAL_COMMA = re.compile(r'(":\s*-?\d+),(?=\d+\s*[,}\n])')
_MISSING_COMMA = re.compile(r'(?<=[}\]"])\s+(?=[{\["])')
_QUOTES = str.maketrans("“”„‟«»‘’", '""""""\'\'')


class _Loader(yaml.SafeLoader):
    """A loader of YAML without anchors, which can expand without limit."""

    def fetch_anchor(self) -> None:
        raise yaml.YAMLError("anchors are not read")

    fetch_alias = fetch_tag = fetch_anchor


def lenient_values(text: str) -> Iterator[Any]:
    """Yield what `text` may mean, best reading first; nothing if no reader understands it."""
    if len(text) > LONGEST_LENIENT_CHARS:
        return
    plain = _COMMENT.sub(lambda found: found[0] if found[0][0] == '"' else " ", text)
    plain = _ESCAPED.sub(lambda found: found[1] or found[0], plain)
    plain = _DECIMAL_COMMA.sub(r"\1.", plain.replace("\u00a0", " "))
    forms = [plain, plain.translate(_QUOTES), _MISSING_COMMA.sub(", ", plain)]
    if "\\'" in plain:
        forms.append(plain.replace("\\'", "'"))
    if plain.startswith("{{"):
        forms += [plain[1:-1], plain.replace("{{", "{").replace("}}", "}")]
    if '\\"' in text:  # JSON inside a JSON string
        forms.insert(0, text.replace('\\"', '"').replace("\\\\", "\\"))
    for form in dict.fromkeys(forms):
        for read in (functools.partial(json.loads, strict=False), ast.literal_eval, _yaml):
            try:
                value = read(form)
            except (ValueError, SyntaxError, TypeError, yaml.YAMLError):
                continue
            except (RecursionError, MemoryError):
                return
            if isinstance(value, dict | list):
                yield value
                break


def _yaml(text: str) -> Any:
    value = yaml.load(text, _Loader)
    if not _has_named_keys(value):
        raise ValueError("a part of a value was read as a key")
    return value


def _has_named_keys(value: Any) -> bool:
    """Tell whether all keys are names: YAML reads `{"end_s": 1,5}` as two keys, end_s and 5."""
    if isinstance(value, list):
        return all(_has_named_keys(item) for item in value)
    if not isinstance(value, dict):
        return True
    names = all(isinstance(key, str) and key and not key[0].isdigit() for key in value)
    return names and all(_has_named_keys(item) for item in value.values())
