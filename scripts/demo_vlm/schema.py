"""Fits replies to the JSON schema of the request."""

from typing import Any


def conform(value: Any, schema: dict, root: dict | None = None) -> Any:
    """Cut `value` to the bounds of `schema`: texts, lists, numbers, unknown keys."""
    root = schema if root is None else root
    schema = resolve(schema, root)
    for branch in schema.get("anyOf", schema.get("oneOf", [])):
        if (value is None) == (resolve(branch, root).get("type") == "null"):
            return conform(value, branch, root)
    if isinstance(value, str):
        return _text(value, schema)
    if isinstance(value, dict):
        properties = schema.get("properties")
        if not isinstance(properties, dict):
            return value
        required = schema.get("required", [])
        result = {
            key: conform(value[key], part, root)
            for key, part in properties.items()
            if key in value and (value[key] is not None or key in required)
        }
        for key in required:
            if key not in result:
                result[key] = blank(properties.get(key, {}), root)
        return result
    if isinstance(value, list):
        items = schema.get("items", {})
        return [conform(item, items, root) for item in value[: schema.get("maxItems")]]
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum"), schema.get("maximum")
        value = value if low is None else max(value, low)
        value = value if high is None else min(value, high)
    return value


def blank(schema: dict, root: dict | None = None) -> Any:
    """Return the smallest value that `schema` allows, if this server has no answer."""
    root = schema if root is None else root
    schema = resolve(schema, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    branches = schema.get("anyOf", schema.get("oneOf", []))
    for branch in branches:
        least = blank(branch, root)
        if least is None or branch is branches[-1]:
            return least
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0] if kind else "string"
    if kind == "object":
        properties = schema.get("properties", {})
        return {key: blank(properties.get(key, {}), root) for key in schema.get("required", [])}
    if kind == "array":
        return [blank(schema.get("items", {}), root) for _ in range(schema.get("minItems", 0))]
    if kind in ("integer", "number"):
        return max(schema.get("minimum", 0), 0)
    if kind == "boolean":
        return False
    if kind == "null":
        return None
    return _text("unknown", schema)


def resolve(schema: Any, root: dict) -> dict:
    """Follow `$ref`s within the document; what cannot be followed allows everything."""
    for _ in range(16):
        if not isinstance(schema, dict):
            return {}
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        target: Any = root
        for key in reference.removeprefix("#").strip("/").split("/"):
            target = target.get(key) if isinstance(target, dict) and key else target
        if target is schema:
            return {}
        schema = target
    return {}


def _text(value: str, schema: dict) -> str:
    if schema.get("enum") and value not in schema["enum"]:
        words = set(value.lower().split())
        shared = words & {word for one in schema["enum"] for word in str(one).lower().split()}
        if not shared and "other" in schema["enum"]:
            return "other"
        return max(schema["enum"], key=lambda one: len(words & set(str(one).lower().split())))
    limit = schema.get("maxLength")
    if limit is None or len(value) <= limit:
        return value
    cut = value[:limit]
    # Not within a word, if that leaves anything.
    head = cut.rpartition(" ")[0].rstrip(" ,;:")
    return head or cut
