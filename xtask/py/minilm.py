"""all-MiniLM-L6-v2: safetensors -> ONNX, opset 13, with LayerNorm and Gelu decomposed as torch 1 exports them.

input_ids, attention_mask, token_type_ids i64[batch, sequence]
-> last_hidden_state f32[batch, sequence, 384], sentence_embedding f32[batch, 384] (mean of the tokens, length 1)
"""

import numpy as np
from onnx import TensorProto
from safetensors.numpy import load_file

from graph_builder import GraphBuilder

HIDDEN, LAYERS, HEADS = 384, 6, 12
HEAD = HIDDEN // HEADS


class _Encoder:
    def __init__(self, weights):
        self.weights = weights
        self.b = GraphBuilder("all-MiniLM-L6-v2")

    def f32(self, name, value):
        return self.b.init(name, np.float32(value))

    def i64(self, name, values):
        return self.b.init(name, np.array(values, np.int64))

    def parameter(self, name):
        return self.b.init(name, self.weights[name])

    def linear(self, x, prefix):
        weight = self.b.init(prefix + ".weight.T", self.weights[prefix + ".weight"].T)
        return self.b.node("Add", [self.b.node("MatMul", [x, weight]), self.parameter(prefix + ".bias")])

    def layer_norm(self, x, prefix):
        node = self.b.node
        centred = node("Sub", [x, node("ReduceMean", [x], axes=[-1], keepdims=1)])
        square = node("Pow", [centred, self.f32("two", 2)])
        variance = node("ReduceMean", [square], axes=[-1], keepdims=1)
        deviation = node("Sqrt", [node("Add", [variance, self.f32("layer_norm_epsilon", 1e-12)])])
        scaled = node("Mul", [node("Div", [centred, deviation]), self.parameter(prefix + ".weight")])
        return node("Add", [scaled, self.parameter(prefix + ".bias")])

    def gelu(self, x):
        node = self.b.node
        erf = node("Erf", [node("Div", [x, self.f32("sqrt_two", 2**0.5)])])
        return node("Mul", [node("Mul", [x, node("Add", [erf, self.f32("one", 1)])]), self.f32("half", 0.5)])

    def embeddings(self):
        node = self.b.node
        zero, one, two = (self.i64(f"index_{i}", [i]) for i in range(3))
        length = node("Slice", [node("Shape", ["input_ids"]), one, two, zero])
        positions = self.b.init("position_ids", np.arange(512, dtype=np.int64)[None])
        position_ids = node("Slice", [positions, zero, length, one])
        words, types, places = (
            node("Gather", [self.parameter(f"embeddings.{table}_embeddings.weight"), ids])
            for table, ids in (("word", "input_ids"), ("token_type", "token_type_ids"), ("position", position_ids))
        )
        x = node("Add", [node("Add", [words, types]), places])
        return self.layer_norm(x, "embeddings.LayerNorm")

    def attention(self, x, bias, prefix):
        node = self.b.node
        split, merge = self.i64("split_heads", [0, 0, HEADS, HEAD]), self.i64("merge_heads", [0, 0, HIDDEN])

        def heads(name, perm):
            projected = self.linear(x, f"{prefix}attention.self.{name}")
            return node("Transpose", [node("Reshape", [projected, split])], perm=perm)

        query, key, value = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]), heads("value", [0, 2, 1, 3])
        scores = node("Div", [node("MatMul", [query, key]), self.f32("sqrt_head", HEAD**0.5)])
        weights = node("Softmax", [node("Add", [scores, bias])], axis=-1)
        mixed = node("Transpose", [node("MatMul", [weights, value])], perm=[0, 2, 1, 3])
        y = self.linear(node("Reshape", [mixed, merge]), prefix + "attention.output.dense")
        return self.layer_norm(node("Add", [y, x]), prefix + "attention.output.LayerNorm")

    def feed_forward(self, x, prefix):
        y = self.linear(self.gelu(self.linear(x, prefix + "intermediate.dense")), prefix + "output.dense")
        return self.layer_norm(self.b.node("Add", [y, x]), prefix + "output.LayerNorm")

    def pool(self, x, mask):
        node = self.b.node
        tokens = self.i64("index_1", [1])
        column = node("Unsqueeze", [mask, self.i64("axis_2", [2])])
        total = node("ReduceSum", [node("Mul", [x, column]), tokens], keepdims=0)
        tiny = self.f32("tiny", 1e-9)
        count = node("Max", [node("ReduceSum", [mask, tokens], keepdims=1), tiny])
        mean = node("Div", [total, count])
        norm = node("Max", [node("ReduceL2", [mean], axes=[1], keepdims=1), tiny])
        node("Div", [mean, norm], "sentence_embedding")


def export(model_folder, path):
    e = _Encoder(load_file(model_folder / "model.safetensors"))
    node = e.b.node
    x = e.embeddings()
    mask = node("Cast", ["attention_mask"], to=TensorProto.FLOAT)
    hidden = node("Sub", [e.f32("one", 1), node("Unsqueeze", [mask, e.i64("axes_1_2", [1, 2])])])
    bias = node("Mul", [hidden, e.f32("lowest", np.finfo(np.float32).min)])
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}."
        x = e.feed_forward(e.attention(x, bias, prefix), prefix)
    node("Identity", [x], "last_hidden_state")
    e.pool(x, mask)
    tokens = ["batch", "sequence"]
    e.b.save(
        path,
        [(name, TensorProto.INT64, tokens) for name in ("input_ids", "attention_mask", "token_type_ids")],
        [
            ("last_hidden_state", TensorProto.FLOAT, [*tokens, HIDDEN]),
            ("sentence_embedding", TensorProto.FLOAT, ["batch", HIDDEN]),
        ],
        opset=13,
    )
