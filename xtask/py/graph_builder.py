"""A small builder over onnx.helper: numbered nodes, initializers stored once."""

import numpy as np
import onnx
from onnx import helper, numpy_helper


class GraphBuilder:
    def __init__(self, name):
        self.name = name
        self.nodes = []
        self.initializers = {}

    def init(self, name, array):
        """Adds an initializer unless one of this name is there, and returns the name."""
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def node(self, op, inputs, output=None, **attributes):
        """Adds a node with one output and returns the output's name."""
        number = len(self.nodes) + 1
        output = output or f"t{number}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{op}_{number}", **attributes))
        return output

    def save(self, path, inputs, outputs, opset):
        """Writes the model. `inputs` and `outputs` are rows of (name, element type, shape)."""
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info(*row) for row in inputs],
            [helper.make_tensor_value_info(*row) for row in outputs],
            list(self.initializers.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
