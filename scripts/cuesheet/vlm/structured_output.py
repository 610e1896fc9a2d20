"""The form of a reply as servers take it: its JSON schema, as strict as the strictest wants it.

OpenAI's strict mode refuses a schema in which an object leaves properties open or a property is
not required, and every `default`. vLLM's grammars take the same schema.
"""

from functools import cache
from typing import Any

from pydantic import BaseModel


@cache
def response_format(reply: type[BaseModel]) -> dict[str, Any]:
    """Return the `response_format` of a chat request whose reply is read into `reply`."""
    schema = _strict(reply.model_json_schema())
    return {
        "type": "json_schema",
        "json_schema": {"name": reply.__name__, "schema": schema, "strict": True},
    }


def _strict(schema: Any) -> Any:
    """The schema with closed objects that have all their properties.

    A property that may be left out in a reply has null among its values, so it stays possible to
    say nothing.
    """
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(value) for name, value in schema.items() if name != "default"}
    properties = schema.get("properties")
    if isinstance(properties, dict):
        # Names of properties are no keywords: one may be called `default`.
        strict["properties"] = {name: _strict(value) for name, value in properties.items()}
        strict["required"] = list(properties)
        strict["additionalProperties"] = False
    return strict
