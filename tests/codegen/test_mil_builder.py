"""Programs that coremltools' own builder makes and its own writer saves come back equal from our reader and writer."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest

from codegen import mil
from compiler import ir
from tests.codegen import canonical

logging.getLogger("coremltools").setLevel(logging.ERROR)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.frontend.milproto.load import load as load_milproto
    from coremltools.converters.mil.mil import get_new_symbol, types

OS = {"ios15": ct.target.iOS15, "ios16": ct.target.iOS16, "ios17": ct.target.iOS17, "ios18": ct.target.iOS18}


def save(program, path, os):
    """By coremltools, with only the passes that its back end cannot do without."""
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=OS[os],
        pass_pipeline=ct.PassPipeline.EMPTY,
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )
    model.save(str(path))


def spec(*shape, dtype=types.fp32):
    return mb.TensorSpec(shape=shape, dtype=dtype)


def program(*specs, os):
    return mb.program(input_specs=list(specs), opset_version=OS[os])


def convolution(os):
    rng = np.random.default_rng(0)

    @program(spec(1, 3, 8, 8), os=os)
    def f(x):
        w = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
        y = mb.conv(x=x, weight=w, bias=np.zeros(4, np.float32), pad_type="custom", pad=[1, 1, 1, 1])
        y = mb.batch_norm(x=y, mean=np.zeros(4, np.float32), variance=np.ones(4, np.float32), epsilon=1e-3)
        y = mb.avg_pool(x=y, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid")
        y = mb.conv_transpose(x=y, weight=rng.normal(size=(4, 2, 2, 2)).astype(np.float32), strides=[2, 2])
        return mb.leaky_relu(x=y, alpha=0.1), mb.clip(x=y, alpha=0.0, beta=6.0)

    return f


def many_inputs(os):
    @program(spec(2, 4), spec(2, 4), spec(2, 4, dtype=types.int32), os=os)
    def f(x, y, i):
        c = mb.concat(values=[x, y, x], axis=1, interleave=False)
        s = mb.stack(values=[x, y], axis=0)
        e = mb.einsum(values=[s, mb.expand_dims(x=mb.transpose(x=y, perm=[1, 0]), axes=[2])], equation="abc,cbd->abd")
        a, b = mb.split(x=c, split_sizes=[5, 7], axis=1)
        values, indices = mb.topk(x=x, k=2, axis=-1)
        g = mb.gather(x=x, indices=mb.reduce_argmax(x=y, axis=1), axis=0)
        h = mb.one_hot(indices=i, one_hot_vector_size=5, on_value=2.0, off_value=-1.0)
        z = mb.slice_by_index(x=s, begin=[0, 0, 1], end=[1, 2, 3], squeeze_mask=[True, False, False])
        return c, e, a, b, values, indices, g, h, z, mb.cast(x=i, dtype="fp32")

    return f


def recurrent(os):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    @program(spec(5, 1, 3), spec(1, 4), spec(1, 4), os=os)
    def f(x, h, c):
        y, h1, c1 = mb.lstm(
            x=x, initial_h=h, initial_c=c, weight_ih=normal(16, 3), weight_hh=normal(16, 4), output_sequence=True
        )
        z, h2 = mb.gru(x=y, initial_h=h, weight_ih=normal(12, 4), weight_hh=normal(12, 4), bias=normal(12))
        return y, h1, c1, z, h2

    return f


def control_flow(os):
    @program(spec(1, 3), spec(1, dtype=types.int32), os=os)
    def f(x, n):
        count = mb.cast(x=mb.squeeze(x=n), dtype="fp32")

        def condition(i, a):
            return mb.less(x=i, y=count)

        def body(i, a):
            return mb.add(x=i, y=1.0), mb.cond(
                pred=mb.greater(x=i, y=2.0),
                _true_fn=lambda: mb.mul(x=a, y=np.float32(1.5)),
                _false_fn=lambda: mb.add(x=a, y=x),
            )

        _, out = mb.while_loop(_cond=condition, _body=body, loop_vars=(0.0, x))
        return out

    return f


def lists(os):
    @program(spec(2, 4), os=os)
    def f(x):
        ls = mb.make_list(init_length=4, dynamic_length=False, elem_shape=(2, 4), dtype="fp32")
        ls = mb.list_write(ls=ls, index=0, value=x)
        ls = mb.list_scatter(ls=ls, indices=[1, 2], value=mb.stack(values=[x, x], axis=0))
        return mb.list_read(ls=ls, index=1), mb.list_gather(ls=ls, indices=[0, 1]), mb.list_length(ls=ls)

    return f


def compressed_ios16(os):
    @program(spec(1, 64), os=os)
    def f(x):
        affine = mb.constexpr_affine_dequantize(
            quantized_data=np.arange(64 * 4).reshape(4, 64).astype(np.uint8),
            zero_point=np.uint8(3),
            scale=np.linspace(1, 2, 4).astype(np.float32),
            axis=0,
        )
        lut = mb.constexpr_lut_to_dense(
            indices=np.arange(32, dtype=np.uint8), lut=np.array([0.5, 1.5], np.float32), shape=np.uint32([4, 64])
        )
        sparse = mb.constexpr_sparse_to_dense(
            nonzero_data=np.arange(128, dtype=np.float32), mask=np.full(32, 0x55, np.uint8), shape=np.uint32([4, 64])
        )
        cast = mb.constexpr_cast(source_val=np.ones((4, 64), np.float16), output_dtype="fp32")
        y = [mb.linear(x=x, weight=w) for w in (affine, lut, sparse, cast)]
        return mb.concat(values=y, axis=1)

    return f


def compressed_ios18(os):
    from coremltools.converters.mil.mil.types.type_mapping import string_to_nptype

    def narrow(array, name):
        return array.astype(string_to_nptype(name))

    @program(spec(1, 64), os=os)
    def f(x):
        shifted = mb.constexpr_blockwise_shift_scale(
            data=narrow(np.arange(64 * 4).reshape(4, 64) % 16 - 8, "int4"),
            scale=np.linspace(1, 2, 8).astype(np.float32).reshape(4, 2),
            offset=narrow(np.arange(8).reshape(4, 2) - 4, "int4"),
        )
        weights = [shifted]
        for bits in (1, 2, 3, 4, 6):
            indices = narrow(np.arange(64 * 4).reshape(4, 64) % 2**bits, f"uint{bits}")
            lut = np.arange(2**bits, dtype=np.float32).reshape(1, 1, 2**bits, 1)
            weights.append(mb.constexpr_lut_to_dense(indices=indices, lut=lut))
        mask = narrow(np.tile([0, 1], 128).reshape(4, 64), "uint1")
        mask2, data = mb.constexpr_sparse_blockwise_shift_scale(
            data_mask=mask,
            nonzero_data=np.arange(128, dtype=np.int8),
            scale=np.ones((4, 1), np.float32),
            offset=np.zeros((4, 1), np.int8),
        )
        weights.append(mb.constexpr_sparse_to_dense(nonzero_data=data, mask=mask2))
        return mb.concat(values=[mb.linear(x=x, weight=w) for w in weights], axis=1)

    return f


def state(os):
    @program(spec(2, 3, dtype=types.fp16), mb.StateTensorSpec((2, 3), dtype=types.fp16), os=os)
    def f(x, s):
        before = mb.read_state(input=s)
        after = mb.coreml_update_state(state=s, value=mb.add(x=x, y=before))
        mb.coreml_update_state(state=s, value=mb.mul(x=after, y=np.float16(2)))
        return mb.relu(x=after)

    return f


def literals(os):
    @program(spec(2, 3, 4), spec(6, 4), os=os)
    def f(x, y):
        z = mb.reshape_like(x=x, ref_tensors=(y, y), begins=(0, 1), ends=(1, 2), end_masks=(False, False))
        r = mb.resize(x=mb.expand_dims(x=x, axes=[0]), shape=np.int32([6, 8]), resized_dims=np.uint32(2))
        n = mb.layer_norm(x=x, axes=[2], gamma=np.ones(4, np.float32), epsilon=1e-6)
        b = mb.expand_dims(x=x, axes=[0])
        u = mb.upsample_nearest_neighbor(x=b, scale_factor_height=2.0, scale_factor_width=3.0)
        return z, r, n, u, mb.log(x=x), mb.fill(shape=[2, 2], value=3)

    return f


def large_constants(os):
    """Integers, booleans and one tensor of no elements, of sizes on both sides of the weight file's threshold."""

    @program(spec(20, dtype=types.int32), os=os)
    def f(x):
        y = mb.add(x=x, y=np.arange(20, dtype=np.int32))
        z = mb.select(cond=np.arange(20) % 2 == 0, a=x, b=y)
        w = mb.concat(values=[mb.cast(x=z, dtype="fp32"), np.zeros(0, np.float32), np.ones(9, np.float32)], axis=0)
        return w, mb.add(x=mb.cast(x=x, dtype="fp32"), y=np.full(20, np.nan, np.float32))

    return f


CASES = [
    *((f, os) for f in (convolution, many_inputs, recurrent, control_flow, lists, large_constants) for os in OS),
    (compressed_ios16, "ios16"),
    (compressed_ios16, "ios17"),
    (compressed_ios18, "ios18"),
    (state, "ios18"),
    (literals, "ios17"),
    (literals, "ios18"),
]


@pytest.mark.parametrize(("build", "os"), CASES, ids=[f"{f.__name__}-{os}" for f, os in CASES])
def test_read_then_written_it_is_the_program_that_coremltools_saved(build, os, tmp_path):
    save(build(os), tmp_path / "theirs.mlpackage", os)
    module = mil.read(tmp_path / "theirs.mlpackage")
    assert module.attributes["os"] == os
    mil.write(module, tmp_path / "ours.mlpackage", os=os)
    assert canonical.program(tmp_path / "ours.mlpackage") == canonical.program(tmp_path / "theirs.mlpackage")
    theirs, ours = canonical.load(tmp_path / "theirs.mlpackage"), canonical.load(tmp_path / "ours.mlpackage")
    assert ours.description == theirs.description
    assert ours.specificationVersion == theirs.specificationVersion
    weights = tmp_path / "ours.mlpackage/Data/com.apple.CoreML/weights"
    assert load_milproto(ours, ours.specificationVersion, str(weights)).functions
    assert ct.models.MLModel(str(tmp_path / "ours.mlpackage"), skip_model_load=True).get_spec() == ours


def test_classifier(tmp_path):
    @program(spec(1, 4), os="ios16")
    def f(x):
        return mb.softmax(x=x)

    model = ct.convert(
        f,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS16,
        classifier_config=ct.ClassifierConfig(["a", "b", "c", "d"]),
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )
    model.save(str(tmp_path / "theirs.mlpackage"))
    module = mil.read(tmp_path / "theirs.mlpackage")
    (classify,) = (op for op in module.walk() if op.name == "mil.classify")
    assert classify.attributes["classes"] == ("a", "b", "c", "d")
    mil.write(module, tmp_path / "ours.mlpackage", os="ios16")
    assert canonical.program(tmp_path / "ours.mlpackage") == canonical.program(tmp_path / "theirs.mlpackage")
    theirs, ours = canonical.load(tmp_path / "theirs.mlpackage"), canonical.load(tmp_path / "ours.mlpackage")
    assert ours.description == theirs.description


@pytest.mark.parametrize(
    "shape",
    [
        ct.Shape((1, 3, ct.RangeDim(8, 64, default=16), ct.RangeDim(8, 32))),
        ct.EnumeratedShapes([(1, 3, 8, 8), (1, 3, 16, 16)], default=(1, 3, 16, 16)),
    ],
    ids=["range", "enumerated"],
)
@pytest.mark.parametrize("image", [False, True], ids=["array", "image"])
def test_flexible_inputs_and_images(shape, image, tmp_path):
    @program(spec(1, 3, get_new_symbol(), get_new_symbol()), os="ios16")
    def f(x):
        return mb.relu(x=x)

    kind = ct.ImageType(name="x", shape=shape) if image else ct.TensorType(name="x", shape=shape)
    model = ct.convert(
        f,
        inputs=[kind],
        convert_to="mlprogram",
        minimum_deployment_target=OS["ios16"],
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )
    model.save(str(tmp_path / "theirs.mlpackage"))
    module = mil.read(tmp_path / "theirs.mlpackage")
    assert module.main.inputs[0].type is ir.TensorType(ir.F32, (1, 3, "?", "?"))
    mil.write(module, tmp_path / "ours.mlpackage", os="ios16")
    theirs, ours = canonical.load(tmp_path / "theirs.mlpackage"), canonical.load(tmp_path / "ours.mlpackage")
    assert ours.description == theirs.description


def test_several_functions(tmp_path):
    @program(spec(1, 4), os="ios18")
    def f(x):
        return mb.linear(x=x, weight=np.ones((16, 4), np.float32))

    save(f, tmp_path / "one.mlpackage", "ios18")
    both = ct.utils.MultiFunctionDescriptor()
    both.add_function(str(tmp_path / "one.mlpackage"), "main", "first")
    both.add_function(str(tmp_path / "one.mlpackage"), "main", "second")
    both.default_function_name = "second"
    ct.utils.save_multifunction(both, str(tmp_path / "theirs.mlpackage"))
    module = mil.read(tmp_path / "theirs.mlpackage")
    assert sorted(module.functions) == ["first", "second"]
    mil.write(module, tmp_path / "ours.mlpackage", os="ios18")
    assert canonical.program(tmp_path / "ours.mlpackage") == canonical.program(tmp_path / "theirs.mlpackage")
    theirs, ours = canonical.load(tmp_path / "theirs.mlpackage"), canonical.load(tmp_path / "ours.mlpackage")
    assert ours.description == theirs.description
