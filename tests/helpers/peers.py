"""Independent implementations for comparison in tests, where they are installed (extra `peers`)."""

import pytest


def torch_with_vision():
    """Returns torch after an import of torchvision, and skips the test if one of them is missing.

    A CUDA build of torchvision cannot be imported with a CPU build of torch, which does not know
    its compiled operators. The tests need none of these operators, so it is enough to declare them.
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
    torch.torchvision_operators = library  # the declarations exist only as long as the library
