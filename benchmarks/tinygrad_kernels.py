"""How many kernels tinygrad 0.14 schedules for a model on METAL; benchmarks/metal.py runs it.

    DEV=METAL python -m benchmarks.tinygrad_kernels MODEL.onnx NAME=1,3,224,224 …

Scheduling opens no device. Copies of weights to the GPU are left out, kernels are counted as they are.
"""

from __future__ import annotations

import sys


def main() -> None:
    from tinygrad import Tensor
    from tinygrad.nn.onnx import OnnxRunner

    path, *given = sys.argv[1:]
    sizes = dict(word.split("=") for word in given)
    runner = OnnxRunner(path)
    inputs = {}
    for name, value in runner.graph_inputs.items():
        shape = tuple(map(int, sizes[name].split(",")))
        inputs[name] = Tensor.empty(*shape, dtype=value.dtype)
    first, *others = runner(inputs).values()
    schedule = first.schedule_linear(*others)
    print(sum("SINK" in str(call.src[0].op) for call in schedule.src if call.src))


if __name__ == "__main__":
    main()
