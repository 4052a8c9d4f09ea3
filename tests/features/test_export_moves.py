"""Operators that only packages of others have: written by coremltools' own builder, exported, run in onnxruntime."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.driver import Options, load_library
from compiler.errors import UnsupportedError
from compiler.export_package import package_to_onnx
from compiler.proof import read_package
from tests.features.test_export import run

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

Inputs = dict[str, np.ndarray]


def exported(body: Callable[..., Any], inputs: Inputs, folder: Path, os: str = "iOS17") -> np.ndarray:
    """What a program of one result gives once it is a package, read back, and said in ONNX."""
    kinds = {"float32": types.fp32, "int32": types.int32}
    specs = [mb.TensorSpec(shape=a.shape, dtype=kinds[a.dtype.name]) for a in inputs.values()]
    release = getattr(ct.target, os)
    # coremltools names inputs after the function's parameters
    program = mb.program(input_specs=specs, opset_version=release)(body)
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=release,
        pass_pipeline=ct.PassPipeline.EMPTY,
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )
    path = folder / "m.mlpackage"
    model.save(str(path))
    return run(package_to_onnx(read_package(path), load_library(Options())), inputs)[0]


def counted(*shape: int) -> np.ndarray:
    return np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)


#: Row 10, column 1: what lies between is known.
SLOPE = (10 * np.arange(5)[:, None] + np.arange(6)[None]).astype(np.float32)


def test_space_goes_to_batches_in_the_order_of_tensorflow(tmp_path: Path) -> None:
    """The third example of tf.space_to_batch_nd's documentation, channels first; the way back is the inverse."""
    there = exported(
        lambda x: mb.space_to_batch(x=x, block_shape=[2, 2], paddings=[[0, 0], [0, 0]]),
        {"x": counted(1, 1, 4, 4)},
        tmp_path,
    )
    want = [[[[1, 3], [9, 11]]], [[[2, 4], [10, 12]]], [[[5, 7], [13, 15]]], [[[6, 8], [14, 16]]]]
    assert there.tolist() == want
    back = exported(
        lambda x: mb.batch_to_space(x=x, block_shape=[2, 2], crops=[[0, 0], [1, 0]]), {"x": there}, tmp_path
    )
    assert np.array_equal(back, counted(1, 1, 4, 4)[..., 1:])


def test_padding_comes_before_the_blocks(tmp_path: Path) -> None:
    x = counted(2, 1, 1, 3)
    y = exported(lambda x: mb.space_to_batch(x=x, block_shape=[1, 2], paddings=[[1, 0], [0, 1]]), {"x": x}, tmp_path)
    assert y.tolist() == [[[[0, 0], [1, 3]]], [[[0, 0], [4, 6]]], [[[0, 0], [2, 0]]], [[[0, 0], [5, 0]]]]


def test_dimensions_of_others(tmp_path: Path) -> None:
    """The example of the documentation: (2, 3) of the first and (5, 6) of the second."""
    x = counted(12, 15)
    y = exported(
        lambda x, a, b: mb.reshape_like(x=x, ref_tensors=(a, b), begins=(0, 1), ends=(2, 0), end_masks=(False, True)),
        {"x": x, "a": counted(2, 3, 4), "b": counted(1, 5, 6)},
        tmp_path,
    )
    assert np.array_equal(y, x.reshape(2, 3, 5, 6))


def test_the_nearest_of_a_whole_factor(tmp_path: Path) -> None:
    x = counted(1, 2, 2, 3)
    y = exported(
        lambda x: mb.resize_nearest_neighbor(x=x, target_size_height=6, target_size_width=3), {"x": x}, tmp_path
    )
    assert np.array_equal(y, x.repeat(3, axis=2))
    with pytest.raises(UnsupportedError, match=r"resize_nearest_neighbor .*has no meaning in ONNX"):
        exported(
            lambda x: mb.resize_nearest_neighbor(x=x, target_size_height=3, target_size_width=3), {"x": x}, tmp_path
        )


def test_crops_of_boxes(tmp_path: Path) -> None:
    x = np.stack([SLOPE, -SLOPE])[:, None]
    boxes = np.array([[0, 0, 4, 5], [1, 2, 2, 4], [-1, 0, 1, 1]], np.float32)

    def body(x: Any, boxes: Any) -> Any:
        return mb.crop_resize(
            x=x,
            boxes=boxes,
            box_indices=np.array([0, 1, 0], np.int32),
            target_height=3,
            target_width=2,
            sampling_mode="ALIGN_CORNERS",
            pad_value=np.float32(7),
        )

    y = exported(body, {"x": x, "boxes": boxes}, tmp_path)
    want = np.array([[[0, 5], [20, 25], [40, 45]], [[-12, -14], [-17, -19], [-22, -24]], [[7, 7], [0, 1], [10, 11]]])
    assert np.allclose(y[:, 0], want, atol=1e-5)


@pytest.mark.parametrize("index", [False, True])
def test_crops_of_regions(index: bool, tmp_path: Path) -> None:
    x = SLOPE[None, None] if index else np.stack([SLOPE, -SLOPE])[:, None]
    box = np.array([[0.5, 0.4, 0.5, 0.4]], np.float32)  # center (2, 2), half the sides
    roi = np.concatenate([np.zeros((1, 1), np.float32), box], axis=1) if index else box

    def body(x: Any, roi: Any) -> Any:
        return mb.crop_resize(
            x=x,
            roi=roi,
            target_height=2,
            target_width=1,
            normalized_coordinates=True,
            box_coordinate_mode="CENTER_SIZE_HEIGHT_FIRST",
            sampling_mode="ALIGN_CORNERS",
        )

    y = exported(body, {"x": x, "roi": roi.reshape(1, 1, -1, 1, 1)}, tmp_path, "iOS16")
    want = np.array([[[12.0], [32.0]]])
    assert np.allclose(y[0, :, 0], want if index else np.concatenate([want, -want]), atol=1e-5)


def test_a_box_is_not_sampled_where_nobody_says(tmp_path: Path) -> None:
    boxes = np.zeros((1, 4), np.float32)
    with pytest.raises(UnsupportedError, match="crop_resize"):
        exported(
            lambda x, boxes: mb.crop_resize(x=x, boxes=boxes, target_height=2, target_width=2),
            {"x": SLOPE[None, None], "boxes": boxes},
            tmp_path,
        )


def test_random_numbers_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"random_normal .*draws numbers that no other machine draws"):
        exported(
            lambda x: mb.add(x=x, y=mb.random_normal(shape=np.array([2, 3], np.int32), seed=1)),
            {"x": counted(2, 3)},
            tmp_path,
        )
