"""Lets torchvision be used in the environment of the vLLM tests, which has no GPU.

torchvision from the registry is a CUDA build; its compiled part does not load with a CPU build of
torch. Then two operators are missing that its import registers more functions for, and images
cannot be decoded, which `transformers serve` has it do. `make` puts this file into `.venv-vllm`
with a .pth file that imports it at the start of every Python; it declares the two operators, and
decodes images with Pillow, when torchvision is about to be imported. On a machine with a GPU: not
needed.
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
            _kept.extend([library, _images(torch)])


def _images(torch):
    """The operator of torchvision's library for images, which counts as loaded from now on."""
    library = torch.library.Library("image", "DEF")
    library.define("decode_image(Tensor data, int mode, bool exif_orientation=False) -> Tensor")
    library.impl("decode_image", _decode, "CPU")
    load = torch.ops.load_library

    def load_library(path):
        if not path.endswith("torchvision/image.so"):
            load(path)

    torch.ops.load_library = load_library
    return library


def _decode(data, mode, exif_orientation=False):
    """An image's bytes as a tensor of 3 x height x width (RGB), whatever `mode` says."""
    import io

    import torch
    from PIL import Image

    with Image.open(io.BytesIO(data.numpy().tobytes())) as image:
        rgb = image.convert("RGB")
        pixels = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
        return pixels.reshape(rgb.height, rgb.width, 3).permute(2, 0, 1).contiguous()


sys.meta_path.insert(0, _BeforeTorchvision())
