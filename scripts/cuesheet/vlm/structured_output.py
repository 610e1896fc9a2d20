"""JSON schemas of the replies, in the form that the strictest servers accept.

OpenAI's strict mode rejects a schema with `default`, with optional properties, or with objects that
allow further properties. vLLM's grammars accept the same schema.
"""

from functools import cache
from typing import Any

from pydantic import BaseModel


@cache
def response_format(reply: type[BaseModel]) -> dict[str, Any]:
    """Return the `response_format` of a chat request whose reply is parsed into `reply`."""
    schema = _strict(reply.model_json_schema())
    return {
        "type": "json_schema",
        "json_schema": {"name": reply.__name__, "schema": schema, "strict": True},
    }


def _strict(schema: Any) -> Any:
    """Return the schema with closed objects and all properties required.

    A property that is optional in the model also accepts null, so a reply can still omit its value.
    """
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(value) for name, value in schema.items() if name != "default"}
    properties = schema.get("properties")
    if isinstance(properties, dict):
        # Property names are not schema keywords: one may be called `default`.
        strict["properties"] = {name: _strict(value) for name, value in properties.items()}
        strict["required"] = list(properties)
        strict["additionalProperties"] = False
    return strict
