"""ResNet-50 in shape only: the topology of the onnx wheel's light_resnet50 with random weights.

data f32[1, 3, 224, 224] -> probs f32[1, 1000]. The light model fills its weights with ConstantOfShape. Here each becomes
an initializer of its own seeded values, of a scale that keeps activations near 1, so that nothing folds away and the
numbers are comparable between runtimes.
"""

import zlib

import numpy as np
import onnx
from onnx import helper, numpy_helper


def _weight(name, shape):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("_riv_0"):  # batch norm: running variance
        values = rng.uniform(0.5, 1.5, shape)
    elif name.endswith("_s_0"):  # batch norm: scale; small where a residual branch ends
        values = rng.uniform(0.5, 1.5, shape) * (0.3 if "branch2c" in name else 1.0)
    elif len(shape) > 1:
        fan_in = int(np.prod(shape[1:]))
        gain = 0.1 if "pred" in name else 1.0  # keeps the softmax from saturating
        values = rng.normal(0.0, gain * (2.0 / fan_in) ** 0.5, shape)
    else:
        values = rng.normal(0.0, 0.1, shape)
    return values.astype(np.float32)


def export(light_model, path):
    source = onnx.load(light_model).graph
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in source.initializer}
    rename = {"gpu_0/data_0": "data", source.output[0].name: "probs"}
    nodes, initializers = [], []
    for node in source.node:
        if node.op_type == "ConstantOfShape":
            name = node.output[0]
            initializers.append(numpy_helper.from_array(_weight(name, tuple(shapes[node.input[0]])), name))
            continue
        for names in (node.input, node.output):
            names[:] = [rename.get(name, name) for name in names]
        nodes.append(node)
    made = {tensor.name for tensor in initializers} | {name for node in nodes for name in node.output} | {"data"}
    used = {name for node in nodes for name in node.input if name}
    for name in sorted(used - made):
        initializers.append(numpy_helper.from_array(shapes[name], name))
    graph = helper.make_graph(
        nodes,
        "resnet50",
        [helper.make_tensor_value_info("data", onnx.TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info("probs", onnx.TensorProto.FLOAT, [1, 1000])],
        [tensor for tensor in initializers if tensor.name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
