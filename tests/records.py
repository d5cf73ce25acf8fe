"""Records of reports: what edgekd.report.collect makes of a run, made up."""

from __future__ import annotations

import base64
import io
import math
import random
from typing import Any

from PIL import Image
from turns import given_turns

from edgekd.stages.distill import STUDENT, role_named
from edgekd.stages.prune import RECOVERED
from edgekd.stages.quantize import PTQ, QUANTIZED
from edgekd.stages.train import BASELINE, TEACHER

Json = dict[str, Any]


_TITLES = {
    "teacher": "Teacher",
    "baseline": "Student from labels",
    "student": "Distilled student",
    "pruned": "Pruned and recovered",
    "ptq": "Quantized without training",
    "quantized": "Quantized",
}


# The roles that the stages declare, so that the page is tested with the marks that it shows.
ROLES = {
    role.name: {"legend": role.legend, "shape": role.shape, "colour": role.colour, "part": role.part}
    for role in (TEACHER, role_named("other"), BASELINE, STUDENT, RECOVERED, PTQ, QUANTIZED)
}


def model(role: str, variant: str, accuracy: float, size_bytes: int, **changes: Any) -> Json:
    half = 1.96 * math.sqrt(max(accuracy * (1 - accuracy), 1e-4) / 2000)
    architecture = "timm/resnet50" if role == "teacher" else "torchvision/mobilenet_v3_small"
    return {
        "id": f"{role}-{variant}",
        "role": role,
        "title": _TITLES[role],
        "variant": variant,
        "precision": variant.partition("-")[0],
        "ships": role not in ("teacher", "baseline", "ptq"),
        "architecture": architecture,
        "accuracy": accuracy,
        "interval": [max(0.0, accuracy - half), min(1.0, accuracy + half)],
        "samples": 2000,
        "size_bytes": size_bytes,
        "parameters": 23_528_522 if role == "teacher" else 1_528_106,
        "macs": 4_089_000_000 if role == "teacher" else 56_500_000,
        "seconds": 812.4,
        **changes,
    }


def answers(accuracy: float, samples: int = 2000) -> Json:
    """What an evaluation knows of a model's answers, beside its accuracy."""
    levels = [(0.42 + 0.04 * number, number) for number in range(15)]
    counts = [0, 0, 0, 0, 0, *(samples // 20 for _ in range(5, 14)), samples - 9 * (samples // 20)]
    bins = [
        {"count": count, "confidence": (number + 0.6) / 15, "accuracy": min(1.0, level)}
        if count
        else {"count": 0, "confidence": None, "accuracy": None}
        for count, (level, number) in zip(counts, levels, strict=True)
    ]
    calibration = {"ece": 0.041, "nll": 0.231, "confidence": 0.981, "accuracy": accuracy, "samples": samples}
    names = ("boot", "sandal", "sneaker", "loafer")
    return {
        "balanced_accuracy": accuracy - 0.01,
        "per_class": {
            name: {"accuracy": 0.8 + 0.04 * number, "interval": [0.75 + 0.04 * number, 0.85], "samples": samples // 4}
            for number, name in enumerate(names)
        },
        "confused": [{"label": "boot", "answer": "clog", "count": 17}],
        "calibration": {**calibration, "bins": bins},
        "worst": [
            {"row": row, "name": f"test/boot/{row:04}.jpg", "label": "boot", "answer": "clog", "probability": 0.99}
            for row in range(12)
        ],
    }


def small_image(colour: tuple[int, int, int]) -> str:
    """An image as a data URI."""
    stream = io.BytesIO()
    Image.new("RGB", (96, 96), colour).save(stream, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def measurement(model_id: str, milliseconds: float, *, batch_size: int = 1, **changes: Any) -> Json:
    draw = random.Random(f"{model_id}{batch_size}")
    scale = milliseconds * batch_size**0.8
    samples = sorted(scale * (0.97 + draw.expovariate(14)) for _ in range(400))
    latency = {name: samples[int(share * 399)] for name, share in _PERCENTILES.items()}
    mean = sum(samples) / len(samples)
    return {
        "model": model_id,
        "device": "this-machine",
        "provenance": "measured",
        "engine": "onnxruntime 1.31.1",
        "batch_size": batch_size,
        "threads": 4,
        "latency_ms": {**latency, "mean": mean, "std": scale * 0.07},
        "samples_ms": samples,
        "throughput_per_s": 1000 * batch_size / mean,
        "load_ms": 38.2,
        "first_inference_ms": milliseconds * 6,
        "peak_bytes": 187_300_000,
        "flags": [],
        **changes,
    }


_PERCENTILES = {"min": 0.0, "p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}


def training(role: str, title: str, last: float, epochs: int = 30) -> Json:
    curve = [
        {
            "epoch": epoch,
            "loss": 2.3 * math.exp(-epoch / 9),
            "validation_accuracy": last - 0.45 * math.exp(-epoch / 4) + 0.004 * math.sin(epoch),
        }
        for epoch in range(1, epochs + 1)
    ]
    return {"role": role, "title": title, "epochs": curve}


def sample_record() -> Json:
    """A run as it usually ends: teacher, baseline and a distilled student in two variants."""
    models = [
        model("teacher", "fp32", 0.981, 94_262_311),
        model("baseline", "fp32", 0.951, 6_201_884, seconds=241.0),
        model("student", "fp32", 0.972, 6_201_884, seconds=318.7),
        model("student", "fp16", 0.972, 3_142_207, seconds=2.1),
    ]
    speeds = {"teacher-fp32": 21.4, "baseline-fp32": 2.38, "student-fp32": 2.36, "student-fp16": 2.31}
    return {
        "title": "shoes",
        "created": "2026-03-14T09:26:53+00:00",
        "command": "edgekd run shoes.yaml --set distill.epochs=30",
        "edgekd": "0.1.0",
        "recipe": "name: shoes\ndata:\n  source: image-folder\n  root: data/shoes\n  image_size: 224\n"
        "teacher:\n  model: timm/resnet50\n  train: {epochs: 30}\nstudent:\n"
        "  model: torchvision/mobilenet_v3_small\n",
        "data": {
            "source": "image-folder",
            "classes": ["boot", "sandal", "sneaker", "loafer", "heel", "clog", "slipper", "oxford", "mule", "flat"],
            "image_size": [224, 224],
            "counts": {"train": 10_412, "validation": 1157, "test": 2000},
            "leaks": {
                "policy": "drop",
                "pairs": [{"splits": ["train", "test"], "count": 12, "examples": [["boot/0012.jpg", "boot/91.jpg"]]}],
                "dropped": {"train": 12},
            },
            "duplicates": {"train": 31, "validation": 1, "test": 2},
            "conflicting_labels": 3,
            "conflicts": [[{"file": "mule/7.jpg", "label": "mule"}, {"file": "clog/8.jpg", "label": "clog"}]],
            "broken": {"count": 1, "examples": ["clog/0450.jpg"]},
        },
        "stages": _stages(),
        "roles": ROLES,
        "models": models,
        "numerics": [
            _numerics("teacher-fp32", "torch", 2.9e-6, 0.001),
            _numerics("baseline-fp32", "torch", 2.0e-6, 0.001),
            _numerics("student-fp32", "torch", 2.3e-6, 0.001),
            _numerics("student-fp16", "student-fp32", 0.0022, 0.03),
        ],
        "training": [
            training("teacher", "Teacher, timm/resnet50", 0.983),
            training("baseline", "Baseline (labels only)", 0.953),
            training("student", "Distilled student", 0.974),
        ],
        "pruning": None,
        "quantization": None,
        "legality": [],
        "engines": [],
        "measurements": [
            measurement(name, speed, batch_size=batch) for name, speed in speeds.items() for batch in (1, 8)
        ],
        "environment": {"processor": "8-core x86-64 CPU, 3.2 GHz", "cores": 8, "memory": "32 GB", "governor": None}
        | {"system": "Linux 6.8", "python": "3.12.4", "torch": "2.11.0", "onnxruntime": "1.31.1"},
        "not_run": [{"what": "TensorRT", "why": "no CUDA GPU on this machine"}],
        "bundle": {
            "path": "runs/shoes/bundle",
            "files": [
                {"name": "model.fp32.onnx", "size_bytes": 6_201_884, "note": "97.2 % on the test split"},
                {"name": "model.fp16.onnx", "size_bytes": 3_142_207, "note": "97.2 % on the test split"},
                {"name": "bundle.json", "size_bytes": 4_821, "note": "preprocessing, labels, digests"},
                {"name": "vectors/logits.int8-asym.npy", "size_bytes": 448, "note": "test vectors"},
            ],
        },
        "warnings": [],
    }


def _stages() -> list[Json]:
    rows = [
        ("data", "Data", "reused", 14.2),
        ("teacher", "Teacher", "reused", 812.4),
        ("baseline", "Baseline", "run", 241.0),
        ("distill", "Distilled student", "run", 318.7),
        ("export-teacher-fp32", "Teacher ONNX fp32", "reused", 9.4),
        ("export-baseline-fp32", "Baseline ONNX fp32", "run", 3.2),
        ("export-student-fp32", "Student ONNX fp32", "run", 3.4),
        ("export-student-fp16", "Student ONNX fp16", "run", 2.1),
        ("evaluate", "Accuracy", "run", 51.8),
        ("bundle", "Bundle", "run", 0.9),
        ("bench", "Latency", "run", 22.6),
    ]
    return [
        {"name": n, "title": title, "state": state, "seconds": cost, "facts": [f"{n} made"]}
        for n, title, state, cost in rows
    ]


def _numerics(name: str, reference: str, largest: float, tolerance: float) -> Json:
    return {
        "model": name,
        "reference": reference,
        "max_difference": largest,
        "mean_difference": largest / 9,
        "largest_logit": 14.2,
        "agreement": 1.0,
        "tolerance": {"difference": tolerance, "agreement": 0.99},
        "images": 256,
    }


def minimal_record() -> Json:
    """As little as a record can hold: nothing was made."""
    empty = {"source": "fashion-mnist", "classes": [], "image_size": [28, 28], "counts": {}, "duplicates": {}}
    leaks = {"policy": "report", "pairs": [], "dropped": {}}
    text = {"title": "empty", "created": "2026-03-14", "command": "edgekd run x", "edgekd": "0.1.0", "recipe": ""}
    lists = ("stages", "models", "numerics", "training", "legality", "measurements", "not_run", "warnings")
    none: Json = {
        "roles": ROLES,
        "pruning": None,
        "quantization": None,
        "engines": [],
        "environment": {},
        "bundle": None,
    }
    data = {**empty, "leaks": leaks, "conflicting_labels": 0, "broken": {"count": 0, "examples": []}}
    return {**text, "data": data, "roles": ROLES, **{name: [] for name in lists}, **none}


def whole_record() -> Json:
    """A run with every link: the student is pruned, quantized and shipped in four variants."""
    record = sample_record()
    for entry in record["models"]:
        entry["ships"] = False
    cut = {"parameters": 611_240, "macs": 27_100_000}
    record["models"] += [
        model("pruned", "fp32", 0.968, 2_480_750, **cut),
        model("pruned", "fp16", 0.968, 1_256_880, **cut),
        model("ptq", "int8", 0.931, 742_118, **cut),
        model("quantized", "int8", 0.964, 742_118, **cut),
        model("quantized", "int8-asym", 0.964, 739_870, **cut),
    ]
    speeds = {"pruned-fp32": 1.42, "pruned-fp16": 1.61, "quantized-int8-asym": 0.98}
    record["measurements"] += [measurement(name, speed, batch_size=b) for name, speed in speeds.items() for b in (1, 8)]
    record["training"] += [
        training("pruned", "Pruned and recovered", 0.969, 12),
        training("quantized", "Quantized", 0.966, 6),
    ]
    names = ("prune", "recover", "calibrate", "quantize", "export-quantized-int8")
    record["stages"][4:4] = [
        {"name": n, "title": n.title(), "state": "run", "seconds": 31.5, "facts": []} for n in names
    ]
    for entry in record["models"]:
        entry.update(answers(entry["accuracy"]))
    return {
        **record,
        "images": {row: small_image((20 * row, 120, 90)) for row in range(12)},
        "pruning": _pruning(),
        "quantization": {
            "mode": "qad",
            "calibration_images": 512,
            "calibration_set": "c0ffee123456" + "0" * 52,
            "quantized_values": 108,
            "operations": 64,
            "left_in_float": {
                "features.1.block.1.scale_activation": "no int8 form of this operation is known",
                "classifier.1": "in int8 it alone changes the answers by 3.1 %",
            },
            "mixed": _mixed(),
        },
        "engines": [
            _order("TensorRT", None, "int8", "fp16", "fp32"),
            _order("OpenVINO", None, "int8", "fp32", "fp16"),
            _order("ONNX Runtime", None, "fp32", "fp16"),
            _order("ONNX Runtime", "x86_64", "int8-asym", "fp32", "fp16"),
        ],
        "budget": {
            "met": False,
            "model": "pruned-fp16",
            "engine": "onnxruntime 1.31.1",
            "bounds": [
                {"name": "latency_ms", "limit": 5.0, "value": 1.61, "met": True},
                {"name": "accuracy_drop", "limit": 0.01, "value": 0.013, "met": False, "settled": False}
                | {"interval": [0.004, 0.022], "against": "teacher-fp32"},
                {"name": "size_mb", "limit": 1.0, "value": 1.25688, "met": False}
                | {"nearest": {"model": "quantized-int8-asym", "value": 0.73987}},
            ],
        },
        "unmeasured": {"int8": "int8 is the graph for TensorRT and OpenVINO: its latency here would say nothing"},
        "legality": [
            _legality(name, version, jetpack)
            for name in ("pruned-fp32", "quantized-int8")
            for version, jetpack in (("8.6", "JetPack 6.0"), ("10.3", "JetPack 6.1, 6.2"), ("11.4", "workstation"))
        ],
    }


def _mixed() -> Json:
    """A search over sixty operations, of which one has to stay in float."""
    errors = [{"name": f"features.{i}.block.0", "error": i / 90_000, "lost": 0.0} for i in range(59)]
    found = {"measure": "accuracy", "allowed": 0.005, "images": 2048, "kept": ["classifier.1"], "met": True}
    before = {"value": 0.021, "low": 0.012, "high": 0.03}
    after = {"value": 0.002, "low": -0.002, "high": 0.006}
    last = {"name": "classifier.1", "error": 0.031, "lost": 0.016}
    return {**found, "before": before, "after": after, "sensitivity": [*errors, last]}


def _pruning() -> Json:
    """Sixty layers, the first and the last as wide as they were."""
    before = [16 + 8 * index for index in range(60)]
    after = [width if index in (0, 59) else width // 16 * 8 for index, width in enumerate(before)]
    pairs = enumerate(zip(before, after, strict=True))
    widths = [{"layer": f"features.{i}.block.0", "before": wide, "after": cut} for i, (wide, cut) in pairs]
    counts = {"before": {"macs": 56_500_000, "parameters": 1_528_106}}
    counts["after"] = {"macs": 27_100_000, "parameters": 611_240}
    curve = {"channels": 16, "shares": [0.25, 0.5, 0.75], "errors": [0.01, 0.04, 0.2]}
    curves = [{**curve, "layers": [f"features.{i}.block.0.weight"], "lost": [0.0, i / 500, i / 90]} for i in range(30)]
    rules = {"measure": "macs", "importance": "group-norm", "shares": "sensitivity", "multiple": 8}
    whole = {"features.60.attention": "its channels meet operators that do not treat channels apart: aten::_softmax"}
    found = {"target": 0.5, "kept": 0.4796, "widths": widths, "sensitivity": curves, "whole": whole}
    return {**rules, **counts, **found}


def _legality(name: str, version: str, jetpack: str) -> Json:
    errors = [_finding("error", "", "opset 20: the parser of TensorRT 8 stops at 17")] if version == "8.6" else []
    nodes = range(20) if name.endswith("int8") else ()
    narrow = "too few channels: stays in float"
    warnings = [_finding("warning", f"conv_{node} (Conv, {node} to 8 channels)", narrow) for node in nodes]
    return {
        "model": name,
        "version": version,
        "jetpack": jetpack,
        "legal": not errors,
        "note": "operators as in the parser's source",
        "findings": errors + warnings,
    }


def _finding(level: str, node: str, message: str) -> Json:
    return {"level": level, "node": node, "message": message}


def _order(title: str, machine: str | None, *names: str) -> Json:
    engine = {"engine": title.lower().replace(" ", ""), "title": title, "machine": machine, "variants": list(names)}
    if machine is None:
        return {**engine, "reason": "by rule, not measured"}
    turns = given_turns({"fp32": 1.42, "int8-asym": 0.98, "fp16": 1.61}).model_dump(mode="json")
    return {**engine, "reason": "int8-asym wins: 1.4× faster than fp32 (0.980 against 1.42 ms)", "turns": turns}


def sets_record() -> Json:
    """A whole run whose images have several labels."""
    record = whole_record()
    record["data"]["measure"] = "mAP"
    for entry in record["models"]:
        entry["mAP"] = entry.pop("accuracy")
        del entry["balanced_accuracy"], entry["confused"]
        entry.update(set_answers(entry["samples"]), chance=0.21, micro_f1=0.91, macro_f1=0.88)
        spread = random.Random(entry["id"])
        entry["replicates"] = [min(1.0, entry["mAP"] + spread.gauss(0, 0.01)) for _ in range(200)]
    for each in record["training"]:
        for epoch in each["epochs"]:
            epoch["validation_mAP"] = epoch.pop("validation_accuracy")
    return record


def set_answers(samples: int) -> Json:
    """What an evaluation knows of a model's answers to images of several labels, beside its mAP."""
    names = ("boot", "sandal", "sneaker", "loafer")
    bins = [
        {"count": count, "probability": (number + 0.4) / 15, "frequency": (number + 0.2) / 15}
        if count
        else {"count": 0, "probability": None, "frequency": None}
        for number, count in enumerate([3 * samples, 0, *[samples // 13] * 13])
    ]
    calibration = {"ece": 0.031, "brier": 0.072, "nll": 0.244, "probability": 0.23, "frequency": 0.21}
    calibration |= {"difference": 0.02, "interval": [0.012, 0.028], "labels": sum(each["count"] for each in bins)}
    wrong = [
        {"label": "boot", "given": True, "probability": 0.98},
        {"label": "clog", "given": False, "probability": 0.04},
    ]
    return {
        "per_class": {
            name: {
                "average_precision": 0.8 + 0.04 * number,
                "interval": [0.75 + 0.04 * number, 0.85 + 0.04 * number],
                "samples": samples // 5,
                "probability": 0.22,
                "ece": 0.03,
            }
            for number, name in enumerate(names)
        },
        "calibration": {**calibration, "bins": bins},
        "worst": [{"row": row, "name": f"test/boot/{row:04}.jpg", "wrong": wrong} for row in range(12)],
    }


def crowded_record() -> Json:
    """A whole run and twelve students with long names on two devices, one of them estimated; everything flagged."""
    record = whole_record()
    for width in record["pruning"]["widths"]:
        width["layer"] = f"a_rather_long_stage_name.{width['layer']}.with_its_own_projection"
    reason = "no int8 form of this operation is known"
    record["quantization"]["left_in_float"] = {f"blocks.{i}.attention.softmax_{i}": reason for i in range(40)}
    for index in range(12):
        name = f"student-p{index}"
        title = f"Student pruned to {90 - 5 * index} % of its multiply-accumulates and fine-tuned"
        variant = f"int8-{index}"
        accuracy = 0.968 - 0.0035 * index
        record["models"].append(model("student", variant, accuracy, 2_000_000 - 120_000 * index, id=name, title=title))
        busy = {"flags": ["busy: load 3.1 on 2 cores", "throttled"]}
        record["measurements"].append(measurement(name, 2.2 - 0.09 * index, **busy))
        orin = {"device": "jetson-orin-nano-8gb", "engine": "tensorrt 10.3", "threads": 1, "samples_ms": []}
        guess = {"provenance": "estimated" if index % 2 else "measured"}
        record["measurements"].append(measurement(name, 0.9 - 0.05 * index, **orin, **guess))
    for entry in record["models"]:
        for each in entry.get("worst", ()):
            each["name"] = f"a/rather/long/path/to/{'averyveryverylongname' * 4}/{each['row']}.jpg"
            each["label"], each["answer"] = "a class of a rather long name", "anotherclasswithonelongword" * 2
    record["warnings"] = [
        "The test split holds 2 images twice.",
        "Latency was measured while other programs were running: take p99 with care.",
    ]
    return record
