"""Settings of any training."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgekd.recipe.base import ClassWeights, Positive, Precision, Seed, Settings, Share


class StepSettings(Settings):
    """Optimisation settings of any training. The schedule is a cosine after a linear warm-up, counted in steps."""

    # The fraction of the default learning rate that this kind of training has.
    lower: ClassVar[float] = 1.0

    epochs: Positive = Field(30, description="passes over the training images")
    batch_size: Positive | None = Field(
        None, description="images in a step; default: 128, of fewer than 1,024 training images an eighth"
    )
    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd", description="sgd: with momentum; adamw: needs a lower learning rate"
    )
    learning_rate: Annotated[float, Field(gt=0.0)] | None = Field(
        None,
        description="peak learning rate, after the warm-up; default: 0.1 with sgd and 0.001 with adamw for batches of "
        "128 or more, in proportion for smaller ones",
    )
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.9, description="momentum of sgd (Nesterov); adamw ignores it"
    )
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(
        5e-4, description="weight decay; biases and normalisation layers are excluded"
    )
    warmup_epochs: Annotated[float, Field(ge=0.0)] = Field(
        1.0, description="epochs over which the learning rate rises to its peak"
    )
    clip_norm: Annotated[float, Field(gt=0.0)] | None = Field(
        5.0, description="largest norm of the gradient, larger ones are scaled down to it; null: no clipping"
    )
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None, description="decay of an exponential moving average of the weights; default: no averaging"
    )
    precision: Precision = Field(
        "auto", description="auto: chosen by timing a few steps, in very short trainings by rule"
    )
    memory_format: Literal["auto", "channels_last", "contiguous"] = Field(
        "auto", description="auto: chosen by timing a few steps, in very short trainings channels_last"
    )
    threads: Positive | None = Field(
        None, description="CPU threads; default: chosen by timing a few steps, at most one per usable core"
    )
    compile: bool = Field(
        False, description="run the student and a live teacher through torch.compile; pays off in long trainings"
    )
    seed: Seed = Field(0, description="seed of the initial weights, the order of the images and their augmentation")


class TrainSettings(StepSettings):
    """Training on labels."""

    label_smoothing: Share = Field(0.0, description="label smoothing of the cross-entropy")
    class_weights: ClassWeights = Field(
        None,
        description="weights of the classes in the cross-entropy: a list in the order of the classes; auto: n / "
        "(K n_c) for n_c of n training images and K classes; default: all equal",
    )
