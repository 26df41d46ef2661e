"""Reference answers by ONNX Runtime on the CPU, for tests and benchmarks."""

import json

import numpy as np
import onnx
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer

PHOTOS = ("coffee", "camera", "chelsea")
SENTENCES = (
    "That is a happy person",
    "That is a happy dog",
    "That is a very happy person",
    "Today is a sunny day",
)
TOP = 5


def photo_input(image):
    """Centre crop of 224/256 of the short side, bicubic to 224, (rgb - 127) / 128, NCHW f32[1, 3, 224, 224].

    The rounding of the crop is that of EfficientNet's own evaluation code.
    """
    side = min(image.size) * 224 // 256
    left, top = (image.width - side + 1) // 2, (image.height - side + 1) // 2
    crop = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    pixels = (np.asarray(crop, np.float32) - 127) / 128
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def sentence_input(tokenizer, sentences):
    """Tokens of the sentences, padded to the longest: three arrays i64[len(sentences), tokens]."""
    encoded = tokenizer.encode_batch(list(sentences))
    fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {name: np.array([getattr(e, field) for e in encoded], np.int64) for name, field in fields.items()}


def record_case(run, folder, inputs):
    """Runs one case, writes inputs/NAME.npy, outputs/NAME.npy and inputs.npz, and returns the outputs by name."""
    names = [output.name for output in run.get_outputs()]
    outputs = dict(zip(names, run.run(names, inputs)))
    for part, arrays in (("inputs", inputs), ("outputs", outputs)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            np.save(folder / part / f"{name}.npy", array)
    np.savez(folder / "inputs.npz", **inputs)
    return outputs


def session(path):
    """A model on the CPU."""
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def count_flops(path, inputs):
    """Multiplications and additions of the convolutions and matrix products, from the shapes of a run."""
    model = onnx.load(path)
    contractions = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    names = {name for node in contractions for name in (node.input[0], node.input[1], node.output[0])}
    produced = {name for node in model.graph.node for name in node.output}
    outputs = sorted(names & produced)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    shapes |= {name: array.shape for name, array in inputs.items()}
    shapes |= {name: array.shape for name, array in zip(outputs, session.run(outputs, inputs))}

    def inner(node):
        weight = shapes[node.input[1]]
        if node.op_type == "Conv":
            return int(np.prod(weight[1:]))
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        return weight[-1] if transposed else weight[-2]

    return sum(2 * int(np.prod(shapes[node.output[0]])) * inner(node) for node in contractions)


def record(models, labels):
    """Writes models/reference/MODEL/CASE/… and models/answers.json."""
    reference = models / "reference"
    answers = {"flops": {}, "efficientnet-lite0": {}, "minilm": {"sentences": list(SENTENCES)}}

    run = session(models / "efficientnet-lite0.onnx")
    for photo in PHOTOS:
        image = Image.open(models / "photos" / f"{photo}.png").convert("RGB")
        outputs = record_case(run, reference / "efficientnet-lite0" / photo, {"input": photo_input(image)})
        probs = outputs["probs"][0]
        best = np.argsort(-probs)[:TOP]
        answers["efficientnet-lite0"][photo] = [[labels[i], round(float(probs[i]), 4)] for i in best]
    example = {"input": photo_input(image)}
    answers["flops"]["efficientnet-lite0"] = count_flops(models / "efficientnet-lite0.onnx", example)

    run = session(models / "minilm.onnx")
    tokenizer = Tokenizer.from_file(str(models / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    outputs = record_case(run, reference / "minilm" / "sentences", sentence_input(tokenizer, SENTENCES))
    embeddings = outputs["sentence_embedding"]
    answers["minilm"]["similarity"] = [round(float(embeddings[0] @ other), 4) for other in embeddings[1:]]
    record_case(run, reference / "minilm" / "one", sentence_input(tokenizer, SENTENCES[:1]))
    rng = np.random.default_rng(128)
    ids = rng.integers(1000, 30000, (1, 128), dtype=np.int64)
    long = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    record_case(run, reference / "minilm" / "sequence-128", long)
    answers["flops"]["minilm"] = count_flops(models / "minilm.onnx", long)

    run = session(models / "resnet50.onnx")
    image = Image.open(models / "photos" / "coffee.png").convert("RGB")
    example = {"data": photo_input(image)}
    record_case(run, reference / "resnet50" / "coffee", example)
    answers["flops"]["resnet50"] = count_flops(models / "resnet50.onnx", example)

    (models / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")
