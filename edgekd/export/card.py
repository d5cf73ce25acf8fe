"""The model card in a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekd.data.dataset import Dataset
from edgekd.models.architecture import Architecture
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.edits.activation import NAME as ACTIVATION
from edgekd.models.edits.reparameterize import NAME as REPARAMETERIZE
from edgekd.runtime.statistics import score_of
from edgekd.store.artifacts import Json

_MEASURED = {
    "accuracy": """## Accuracy

Top-1 on the test split of `{source}`, measured on the files themselves, with 95 % intervals.

| variant | file | accuracy | images | engine |
|---|---|---|---|---|""",
    "agreement": """## Agreement with fp32

How often the files give the same top-1 answer as the network in float, on held-out images without labels, with 95 %
intervals. How often either is right was not measured.

Error of the logits: the root of the mean square of their differences, relative to that of the network's in float.

| variant | file | agreement with fp32 | images | engine | error of the logits |
|---|---|---|---|---|---|""",
    "mAP": """## Mean average precision

mAP on the test split of `{source}`, measured on the files themselves, with 95 % intervals: the mean of the classes'
average precisions, as scikit-learn's average_precision_score.

| variant | file | mAP | images | engine |
|---|---|---|---|---|""",
}
_SEED = "These are figures of this one network; another training, or another seed, gives another."
_REMARK = {
    "accuracy": _SEED,
    "mAP": _SEED,
    "agreement": "No labels were given: these figures are no accuracy.",
}
_SETS = """An image can have several of the classes, or none: a class is answered where its probability reaches its
threshold in `bundle.json`, chosen for the highest F1 on the validation split."""


_PAGE = """# {name}
{unusable}
An image classifier for {classes} classes at {size} pixels, compressed with edgekd:
{model} ({arguments}), {cost}.

{measured}
{rows}
{heads}
{remark}
{decisions}
## Use

```python
from edgekd.runtime import load

model = load("path/to/this/folder")
print(model("image.jpg"){answer})
model.verify()  # runs the bundle's test vectors and compares the outputs
```

Without edgekd: `bundle.json` describes how images are resized, cropped and normalised; `vectors/` has test inputs and
the expected outputs.

## Classes

{names}

## Limits

{answers} Images unlike those of the test split, other cameras and other
crops were not measured. Its licence depends on the licences of the data and of the weights it was trained from.
"""


def card(
    name: str,
    architecture: Architecture,
    student: Checkpoint,
    variants: Json,
    data: Dataset,
    warnings: Sequence[str] = (),
    decisions: Mapping[str, str] | None = None,
) -> str:
    """The model card in Markdown: what the model is, its accuracy, how to use it, and its limits.

    Args:
        name: of the bundle.
        architecture: of the network that ships.
        student: its checkpoint.
        variants: the bundle's records of its variants.
        data: the data set.
        warnings: why the variants' answers cannot be believed, where they cannot.
        decisions: why an engine has its default variant, by the engine's title.
    """
    sets, source = data.measure == "mAP", data.details.source
    named = [", ".join(student.classes), *(f"{head}: {', '.join(names)}" for head, names in architecture.heads.items())]
    return _PAGE.format(
        name=name,
        unusable=_unusable(warnings),
        classes=len(student.classes),
        size=data.details.preprocessing.shape,
        model=architecture.model,
        arguments=", ".join(f"{key}={value}" for key, value in architecture.arguments.items()) or "no arguments",
        cost=f"{student.metrics['parameters']:,} parameters, {student.metrics['macs']:,} MACs per image"
        + _edited(architecture),
        measured=_MEASURED[data.measure].format(source=source),
        rows="\n".join(_row(variant, record, record["metrics"]) for variant, record in variants.items()),
        heads="".join(
            _row(f"{variant}, {head}", record, metrics) + "\n"
            for variant, record in variants.items()
            for head, metrics in record["metrics"].get("heads", {}).items()
        ),
        remark=_REMARK[data.measure],
        decisions=_decisions(decisions or {}),
        answer=".labels" if sets else ".top(3)",
        names="\n\n".join(named),
        answers=_SETS if sets else "The model predicts one of its classes for any image.",
    )


def _edited(architecture: Architecture) -> str:
    """That it has other activations than its model, or has lost the branches that it was trained with."""
    found = []
    for edit in architecture.edits:
        if edit["edit"] == ACTIVATION:
            found.append("; ReLU instead of hard-swish and SiLU")
        if edit["edit"] == REPARAMETERIZE:
            found.append("; branches folded after training: {:,} → {:,} convolutions".format(*edit["convolutions"]))
    return "".join(found)


def _decisions(reasons: Mapping[str, str]) -> str:
    if not reasons:
        return ""
    return "\n".join(("\n## Default variant\n", *(f"{title}: {reason}.\n" for title, reason in reasons.items())))


def _unusable(warnings: Sequence[str]) -> str:
    return "\n".join(("\n**Not usable:**\n", *(f"- {warning}" for warning in warnings), "")) if warnings else ""


def _row(name: str, record: Json, metrics: Json) -> str:
    """A file's row in the table of measured figures: of its network, or of one of its heads."""
    low, high = metrics["interval"]
    return (
        f"| {name} | `{record['file']}` | {score_of(metrics):.2%} ({low:.2%} to {high:.2%}) "
        f"| {metrics['samples']} | {metrics['engine']} |{_logit_error(metrics)}"
    )


def _logit_error(metrics: Json) -> str:
    """The last cell of a table of agreements; nothing in one of accuracies."""
    if "logit_error" not in metrics:
        return ""
    error = metrics["logit_error"]
    return f" {error:.2%} |" if error is not None else " – |"
