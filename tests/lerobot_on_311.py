"""Lets lerobot 0.6.1, which needs Python 3.12, be imported by Python 3.11 and without torchvision.

`install()` adds a finder to `sys.meta_path`. Modules with the syntax of PEP 695 (`type X = ...`,
`class X[T]`, `def f[T]`) are rewritten when they are imported. One module annotates functions with
names that PyAV does not have; its annotations are not evaluated. torchvision, whose wheels need
another build of torch, is replaced by names that do nothing, except `transforms.ToTensor`.
"""

import __future__

import importlib.abc
import importlib.machinery
import re
import sys
import types
import typing

PEP_695 = {
    "lerobot.datasets.aggregate",
    "lerobot.datasets.streaming_dataset",
    "lerobot.motors.motors_bus",
    "lerobot.processor.pipeline",
    "lerobot.utils.io_utils",
}
POSTPONED = {"lerobot.datasets.pyav_utils"}
_TYPE = re.compile(r"^type (\w+) = ", re.MULTILINE)
_CLASS = re.compile(r"^class (\w+)\[([\w, ]+)\](?:\((.*)\))?:$", re.MULTILINE)
_FUNCTION = re.compile(r"^def (\w+)\[\w+(?:: \w+)?\]\(", re.MULTILINE)


class _Loader(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data, path, *, _optimize=-1):
        flags = __future__.annotations.compiler_flag
        text = rewrite(bytes(data).decode()) if self.name in PEP_695 else bytes(data).decode()
        return compile(text, path, "exec", flags=flags, dont_inherit=True, optimize=_optimize)

    def exec_module(self, module):
        module.__dict__["_typing"] = typing
        super().exec_module(module)

    def get_code(self, fullname):
        return self.source_to_code(self.get_data(self.path), self.path)  # not from the cache


def rewrite(text: str) -> str:
    """Return the module's source without the syntax of PEP 695."""
    text = _TYPE.sub(r"\1 = ", text)
    text = _FUNCTION.sub(r"def \1(", text)

    def generic(found: re.Match[str]) -> str:
        names = [name.strip() for name in found[2].split(",")]
        variables = ", ".join(f'_typing.TypeVar("{name}")' for name in names)
        bases = f"{found[3]}, " if found[3] else ""
        return f"class {found[1]}({bases}_typing.Generic[{variables}]):"

    return _CLASS.sub(generic, text)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name not in PEP_695 | POSTPONED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        spec.loader = _Loader(name, spec.origin)
        return spec


class _Unused(types.ModuleType):
    """A module whose names are classes that do nothing."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class ToTensor:
    """An image as float32 of channels x height x width, from 0 to 1."""

    def __call__(self, image):
        import numpy as np
        import torch

        values = np.asarray(image)
        values = values[..., None] if values.ndim == 2 else values
        return torch.from_numpy(values.copy()).permute(2, 0, 1).float() / 255


def install() -> None:
    sys.meta_path.insert(0, _Finder())
    names = ("", ".io", ".transforms", ".transforms.functional", ".transforms.v2")
    for name in names:
        full = f"torchvision{name}"
        module = _Unused(full)
        module.__path__ = []
        module.__spec__ = importlib.machinery.ModuleSpec(full, None, is_package=True)
        sys.modules[full] = module
        parent, _, last = full.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)
    sys.modules["torchvision.transforms"].ToTensor = ToTensor
