"""Lists the settings and describes in words what each accepts, for generated files and errors."""

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cuesheet.config.types import Expected

_PLAIN = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a field that is a section; None for a single setting."""
    annotation = field.annotation
    return (
        annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    )


def settings(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield (full key, field) of every setting and section below `model`, in order."""
    for name, field in model.model_fields.items():
        yield f"{above}{name}", field
        section = section_of(field)
        if section:
            yield from settings(section, f"{above}{name}.")


@functools.cache
def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the description of each setting of a section: the text below it in the source.

    Only generated files need them. With its option `use_attribute_docstrings`, pydantic would read
    them from the source whenever a job imports the models.
    """
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for setting, below in pairwise(definition.body):
        if isinstance(setting, ast.AnnAssign) and isinstance(setting.target, ast.Name):
            match below:
                case ast.Expr(ast.Constant(str(text))):
                    found[setting.target.id] = " ".join(text.split())
    return found


def choices(field: FieldInfo) -> list[str]:
    """Return the values that a field (or an item of its list) allows; empty if any is allowed."""
    found: list[str] = []
    open_kinds = [field.annotation]
    while open_kinds:
        annotation = open_kinds.pop(0)
        if get_origin(annotation) is Literal:
            found.extend(get_args(annotation))
        else:
            open_kinds.extend(get_args(annotation))
    return found


def takes_list(field: FieldInfo) -> bool:
    """Return whether a field accepts a list."""
    kinds = [field.annotation, *get_args(field.annotation)]
    return any(get_origin(annotation) is list for annotation in kinds)


def describe_expected(field: FieldInfo, item: bool = False) -> str:
    """Describe what a field accepts, e.g. `whole number, 1 to 64`; with `item`, a list's items."""
    annotation = field.annotation
    if item:
        lists = [k for k in (annotation, *get_args(annotation)) if get_origin(k) is list]
        return type_name(get_args(lists[0])[0]) if lists else type_name(annotation)
    for mark in field.metadata:
        if isinstance(mark, Expected):
            return mark.words
    words = type_name(annotation)
    limits = _limits(field)
    return f"{words}, {limits}" if limits else words


def type_name(annotation: Any) -> str:
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in inner)
    if origin is list:
        if get_origin(inner[0]) is Literal:
            return "list of any of " + ", ".join(f"`{value}`" for value in get_args(inner[0]))
        return f"list of {_PLAIN[inner[0]]}s"
    if origin is dict:
        return "mapping"
    if origin in (Union, UnionType):
        words = [type_name(one) for one in inner if one is not NoneType]
        if NoneType in inner:
            words.append("null")
        return " or ".join(words)
    raise TypeError(f"no words for the type {annotation!r}; add them to config/describe.py")


def _limits(field: FieldInfo) -> str:
    low = high = above = least = None
    for mark in field.metadata:
        if isinstance(mark, annotated_types.Ge):
            low = mark.ge
        elif isinstance(mark, annotated_types.Gt):
            above = mark.gt
        elif isinstance(mark, annotated_types.Le):
            high = mark.le
        elif isinstance(mark, annotated_types.MinLen):
            least = mark.min_length
    if least is not None:
        return f"at least {least}"
    if above is not None:
        return f"above {above:g}" + (f" and at most {high:g}" if high is not None else "")
    if low is not None:
        return f"{low:g} to {high:g}" if high is not None else f"{low:g} or more"
    return f"at most {high:g}" if high is not None else ""
