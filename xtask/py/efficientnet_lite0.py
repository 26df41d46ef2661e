"""EfficientNet-Lite0 (ImageNet-1k): a torch state_dict -> ONNX, opset 13.

input f32[batch, 3, 224, 224] = (rgb - 127) / 128 -> probs f32[batch, 1000]
"""

import numpy as np
from onnx import TensorProto

import torch_checkpoint
from graph_builder import GraphBuilder

# Rows of (repeats, stride of the first, expansion, output channels).
STAGES = [(1, 1, 1, 16), (2, 2, 6, 24), (2, 2, 6, 40), (3, 2, 6, 80), (3, 1, 6, 112), (4, 2, 6, 192), (1, 1, 6, 320)]
STEM_CHANNELS = 32


def export(checkpoint, path):
    weights = torch_checkpoint.load(checkpoint)
    b = GraphBuilder("efficientnet_lite0")
    zero, six = b.init("zero", np.float32(0)), b.init("six", np.float32(6))

    def conv_bn(x, conv, bn, stride, size, groups=1, activation=True):
        """Convolution with TensorFlow's "same" padding, batch norm and ReLU6; returns the output and its size."""
        kernel = weights[conv].shape[2]
        out = -(-size // stride)
        pad = max((out - 1) * stride + kernel - size, 0)
        before, after = pad // 2, pad - pad // 2
        x = b.node(
            "Conv",
            [x, b.init(conv, weights[conv])],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=groups,
            dilations=[1, 1],
        )
        statistics = [f"{bn}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        x = b.node("BatchNormalization", [x] + [b.init(name, weights[name]) for name in statistics], epsilon=1e-3)
        return (b.node("Clip", [x, zero, six]) if activation else x), out

    x, size = conv_bn("input", "_conv_stem.weight", "_bn0", 2, 224)
    channels, block = STEM_CHANNELS, 0
    for repeats, first_stride, expansion, out_channels in STAGES:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            prefix = f"_blocks.{block}."
            y, out_size = x, size
            if expansion != 1:
                y, _ = conv_bn(y, prefix + "_expand_conv.weight", prefix + "_bn0", 1, size)
            depthwise = prefix + "_depthwise_conv.weight"
            y, out_size = conv_bn(y, depthwise, prefix + "_bn1", stride, size, groups=channels * expansion)
            y, _ = conv_bn(y, prefix + "_project_conv.weight", prefix + "_bn2", 1, out_size, activation=False)
            if stride == 1 and channels == out_channels:
                y = b.node("Add", [y, x])
            x, size, channels = y, out_size, out_channels
            block += 1
    x, _ = conv_bn(x, "_conv_head.weight", "_bn1", 1, size)
    x = b.node("Flatten", [b.node("GlobalAveragePool", [x])], axis=1)
    classifier = [b.init(name, weights[name]) for name in ("_fc.weight", "_fc.bias")]
    x = b.node("Gemm", [x, *classifier], transB=1)
    b.node("Softmax", [x], "probs", axis=1)
    b.save(
        path,
        [("input", TensorProto.FLOAT, ["batch", 3, 224, 224])],
        [("probs", TensorProto.FLOAT, ["batch", 1000])],
        opset=13,
    )
