"""Library behind the Cuesheet workflow; imports nothing of Snakemake.

The names below are the public Python API. They are loaded when they are first used (PEP 562), so
that the jobs of a run, which import this package too, do not import pandas.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cuesheet.assemble.annotations import Annotations, State, open_annotations
    from cuesheet.dataset.metadata import Dataset, read_dataset
    from cuesheet.errors import CuesheetError

__version__ = "0.2.0"
__all__ = ["Annotations", "CuesheetError", "Dataset", "State", "open_annotations", "read_dataset"]

_MODULES = {
    "Annotations": "cuesheet.assemble.annotations",
    "State": "cuesheet.assemble.annotations",
    "open_annotations": "cuesheet.assemble.annotations",
    "Dataset": "cuesheet.dataset.metadata",
    "read_dataset": "cuesheet.dataset.metadata",
    "CuesheetError": "cuesheet.errors",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
