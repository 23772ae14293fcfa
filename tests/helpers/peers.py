"""Independent implementations that tests compare with where they are installed (extra `peers`)."""

import pytest


def torch_with_vision():
    """Returns torch, with a torchvision that imports; skips the test without them.

    A torchvision built for CUDA does not import beside a CPU build of torch, which lacks the names
    of its compiled operators; the networks that the tests compare with need none of those.
    """
    torch = pytest.importorskip("torch")
    try:
        import torchvision  # noqa: F401
    except ImportError:
        pytest.skip("torchvision is not installed")
    except RuntimeError:
        _declare_operators(torch)
        pytest.importorskip("torchvision")
    return torch


def _declare_operators(torch) -> None:
    import sys

    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "roi_align(Tensor input, Tensor rois, float scale, SymInt h, SymInt w, int n, bool a)"
        " -> Tensor",
        "roi_pool(Tensor input, Tensor rois, float scale, SymInt h, SymInt w) -> (Tensor, Tensor)",
        "ps_roi_align(Tensor input, Tensor rois, float scale, SymInt h, SymInt w, int n)"
        " -> (Tensor, Tensor)",
        "ps_roi_pool(Tensor input, Tensor rois, float scale, SymInt h, SymInt w)"
        " -> (Tensor, Tensor)",
        "deform_conv2d(Tensor input) -> Tensor",
        "_roi_align_backward(Tensor grad) -> Tensor",
        "_roi_pool_backward(Tensor grad) -> Tensor",
        "_ps_roi_align_backward(Tensor grad) -> Tensor",
        "_ps_roi_pool_backward(Tensor grad) -> Tensor",
        "_deform_conv2d_backward(Tensor grad) -> Tensor",
    ):
        library.define(schema)
    torch.torchvision_operators = library  # the declarations live as long as the object
