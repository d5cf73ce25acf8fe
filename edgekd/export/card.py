"""The model card in a bundle."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.data.dataset import Dataset
from edgekd.models.architecture import Architecture
from edgekd.models.checkpoint import Checkpoint
from edgekd.runtime.statistics import score_of
from edgekd.store.artifacts import Json

_MEASURED = {
    "accuracy": """## Accuracy

Top-1 on the test split of `{source}`, measured on the files themselves, with 95 % intervals.

| variant | file | accuracy | images | engine |""",
    "agreement": """## Agreement with fp32

How often the files give the same top-1 answer as the network in float, on held-out images without labels, with 95 %
intervals. How often either is right was not measured.

Error of the logits: the root of the mean square of their differences, relative to that of the network's in float.

| variant | file | agreement with fp32 | images | engine | error of the logits |""",
    "mAP": """## Mean average precision

mAP on the test split of `{source}`, measured on the files themselves, with 95 % intervals: the mean of the classes'
average precisions, as scikit-learn's average_precision_score.

| variant | file | mAP | images | engine |""",
}
_RULE = {
    "accuracy": "|---|---|---|---|---|",
    "agreement": "|---|---|---|---|---|---|",
    "mAP": "|---|---|---|---|---|",
}
_SEED = "These are figures of this one network; another training, or another seed, gives another."
_REMARK = {
    "accuracy": _SEED,
    "mAP": _SEED,
    "agreement": "No labels were given: these figures are no accuracy.",
}
_SETS = """An image can have several of the classes, or none: a class is answered where its probability reaches its
threshold in `bundle.json`, chosen for the highest F1 on the validation split."""


def card(
    name: str,
    architecture: Architecture,
    student: Checkpoint,
    variants: Json,
    data: Dataset,
    warnings: Sequence[str] = (),
) -> str:
    """The model card in Markdown: what the model is, its accuracy, how to use it, and its limits.

    Args:
        name: of the bundle.
        architecture: of the network that ships.
        student: its checkpoint.
        variants: the bundle's records of its variants.
        data: the data set.
        warnings: why the variants' answers cannot be believed, where they cannot.
    """
    size = data.details.preprocessing.shape
    rows = "\n".join(
        f"| {variant} | `{record['file']}` | {score_of(record['metrics']):.2%} "
        f"({record['metrics']['interval'][0]:.2%} to {record['metrics']['interval'][1]:.2%}) "
        f"| {record['metrics']['samples']} | {record['metrics']['engine']} |{_logit_error(record['metrics'])}"
        for variant, record in variants.items()
    )
    heads = "".join(
        f"| {variant}, {name} | `{record['file']}` | {score['accuracy']:.2%} "
        f"({score['interval'][0]:.2%} to {score['interval'][1]:.2%}) | {score['samples']} | {score['engine']} |\n"
        for variant, record in variants.items()
        for name, score in record["metrics"].get("heads", {}).items()
    )
    sets = data.measure == "mAP"
    answers = _SETS if sets else "The model predicts one of its classes for any image."
    further = "".join(f"\n\n{name}: {', '.join(classes)}" for name, classes in architecture.heads.items())
    cost = f"{student.metrics['parameters']:,} parameters, {student.metrics['macs']:,} MACs per image"
    arguments = ", ".join(f"{key}={value}" for key, value in architecture.arguments.items())
    warned = "".join(f"- {warning}\n" for warning in warnings)
    return f"""# {name}
{f"{chr(10)}**Not usable:**{chr(10)}{chr(10)}{warned}" if warned else ""}
An image classifier for {len(student.classes)} classes at {size} pixels, compressed with edgekd:
{architecture.model} ({arguments or "no arguments"}), {cost}.

{_MEASURED[data.measure].format(source=data.details.source)}
{_RULE[data.measure]}
{rows}
{heads}
{_REMARK[data.measure]}

## Use

```python
from edgekd.runtime import load

model = load("path/to/this/folder")
print(model("image.jpg"){".labels" if sets else ".top(3)"})
model.verify()  # runs the bundle's test vectors and compares the outputs
```

Without edgekd: `bundle.json` describes how images are resized, cropped and normalised; `vectors/` has test inputs and
the expected outputs.

## Classes

{", ".join(student.classes)}{further}

## Limits

{answers} Images unlike those of the test split, other cameras and other
crops were not measured. Its licence depends on the licences of the data and of the weights it was trained from.
"""


def _logit_error(metrics: Json) -> str:
    """The last cell of a table of agreements; nothing in one of accuracies."""
    if "logit_error" not in metrics:
        return ""
    error = metrics["logit_error"]
    return f" {error:.2%} |" if error is not None else " – |"
