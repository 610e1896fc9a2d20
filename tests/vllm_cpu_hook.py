"""Lets torchvision be imported in the environment of the vLLM tests, which has no GPU.

torchvision from the registry is a CUDA build; its compiled part does not load beside a CPU build of
torch, and then two operators are missing that its import registers more functions for. `make` puts
this file into `.venv-vllm` with a .pth file that imports it at the start of every Python; it
declares the two when torchvision is about to be imported. On a machine with a GPU: not needed.
"""

import importlib.abc
import sys

_kept = []


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in ("nms", "qnms"):
                library.define(
                    f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
            _kept.append(library)


sys.meta_path.insert(0, _BeforeTorchvision())
