"""Fits replies to the JSON schema of the request."""

from typing import Any


def conform(value: Any, schema: dict, root: dict) -> Any:
    """Return `value` without unknown keys, within the bounds of `schema`, in its order of keys."""
    schema = resolve(schema, root)
    if isinstance(value, dict):
        parts = schema.get("properties", {}).items()
        return {key: conform(value[key], part, root) for key, part in parts if key in value}
    if isinstance(value, list):
        return [
            conform(one, schema.get("items", {}), root) for one in value[: schema.get("maxItems")]
        ]
    if isinstance(value, str):
        return _choose(value, schema["enum"]) if "enum" in schema else _cut(value, schema)
    return value


def resolve(schema: dict, root: dict) -> dict:
    """Follow a reference to the definitions of the document."""
    if "$ref" in schema:
        return root["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _choose(value: str, choices: list[str]) -> str:
    """Return the choice that shares most words with `value`; `other`, if it may, for none."""
    words = set(value.lower().split())
    shared = {choice: len(words & set(choice.lower().split())) for choice in choices}
    if not any(shared.values()) and "other" in shared:
        return "other"
    return value if value in shared else max(shared, key=lambda choice: shared[choice])


def _cut(value: str, schema: dict) -> str:
    limit = schema.get("maxLength", len(value))
    if len(value) <= limit:
        return value
    # Not within a word, if that leaves anything.
    return value[:limit].rpartition(" ")[0].rstrip(" ,;:") or value[:limit]
