"""The sections of the configuration that say how long and by what a stage is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sadcl.config.frozen import Count, Frozen, NotNegative, Positive
from sadcl.config.sections import Augmentation, ClassLoss


class Stage(Frozen):
    """One of the two stages: SARL alone, then SARL with both contrasts."""

    epochs: Annotated[int, Field(ge=0)] = 20
    """Number of epochs."""
    planned_epochs: Count | None = None
    """Length of the schedule in epochs, at least ``epochs``; None is ``epochs``. Stopping
    a longer schedule early follows another learning-rate curve than a shorter schedule."""
    patience: Count | None = None
    """Stop after this many epochs without a better held-out mAP; None never stops early. The
    published run stops after more than 8, which is 9."""
    patience_counts: Literal["selected", "any"] = "selected"
    """Which held-out mAP must improve. ``selected`` is that of the weights that are selected
    (``optim.report``). ``any`` counts the raw and the averaged weights, each compared with its own
    best. The published run does nearly the same: its averaged weights must beat the best of both
    kinds."""
    lr: Positive = 5e-5
    """Highest learning rate of the stage."""
    head_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs at the start in which the backbone's weights stay as they are and the rest of the
    network learns, or all epochs where there are fewer. A head with random weights would spoil what
    a pre-trained backbone has learned (Kumar et al., Fine-Tuning can Distort Pretrained Features,
    2022)."""
    class_loss: ClassLoss = ClassLoss()
    augmentation: Augmentation = Augmentation()
    """How training images are changed in this stage."""

    @model_validator(mode="after")
    def _planned(self) -> Stage:
        if self.planned_epochs is not None and self.planned_epochs < self.epochs:
            raise ValueError(
                f"planned_epochs >= epochs must hold, but got {self.planned_epochs} < {self.epochs}"
            )
        return self


class Optim(Frozen):
    """The optimiser, its schedule, the moving average of weights (EMA), and precision."""

    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    """``adamw`` decays weights apart from the gradient, ``adam`` as a part of it (L2), ``sgd`` is
    stochastic gradient descent with ``momentum``."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of ``sgd``. OneCycle does not cycle it."""
    backbone_lr: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of the backbone as a share of the stage's, above 0 to 1. ML-GCN, ADD-GCN and
    others train the backbone at 0.1."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of each part of the backbone as a share of the next part's, above 0 to 1. The
    part before the head has ``backbone_lr``. Early layers see edges and colours, which other images
    have too (Clark et al., ELECTRA, 2020; Bao et al., BEiT, 2022)."""
    schedule: Literal["onecycle", "step", "cosine", "constant"] = "onecycle"
    """How the learning rate changes over the planned epochs, after each step. It rises and falls
    (OneCycle), is multiplied by ``step_factor`` after each of ``step_epochs``, falls to 0 along
    half a cosine, or stays."""
    step_epochs: tuple[Count, ...] = ()
    """Epochs after which ``step`` lowers the learning rate."""
    step_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What ``step`` multiplies the learning rate by."""
    decay_biases: bool = True
    """Whether weight decay also applies to biases and the parameters of norms, all those with one
    axis."""
    batch_size: Count = 64
    """Global batch size; it does not depend on the number of workers."""
    drop_last: bool = False
    """Leave out an epoch's last batch if it is incomplete (the published run). Its images take part
    in other epochs, because the order is drawn anew for each."""
    weight_decay: NotNegative = 5e-3
    """Weight decay of AdamW."""
    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of OneCycle in which the learning rate rises, above 0 and below 1."""
    clip_norm: Positive | None = None
    """Largest norm of the gradient; None does not clip."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9998
    """Decay of the EMA of the weights; 0 keeps no EMA."""
    ema_start: Literal["initial", "first_step"] = "initial"
    """What the EMA begins with: a copy of the stage's initial weights, which the first step is
    averaged into (the published run), or the weights after the first step."""
    ema_warmup: bool = False
    """Limit the decay to (1 + step) / (10 + step), so that the EMA is faster at the start."""
    report: Literal["best", "ema", "raw"] = "best"
    """Weights that the metrics come from; ``best`` is the better one on the held-out images."""
    precision: Literal["auto", "fp32", "bf16", "fp64"] = "auto"
    """Floating-point precision. ``auto`` is ``bf16`` on a GPU that has it and ``fp32`` elsewhere;
    the row of a run says which it was. ``bf16`` is mixed precision: weights, losses and sums stay
    in float32, whose products a GPU then rounds to TF32. With ``fp32`` it rounds none. With
    ``fp64`` a difference between runs is no rounding."""
    gradient_compression: Literal["none", "bf16"] = "none"
    """How several workers send their gradients. ``bf16`` rounds them to bfloat16 and adds them up
    in it: half the bytes, for networks that are slow, at the price of results that depend on the
    number of workers beyond float32's rounding. One worker sends nothing and rounds nothing."""
    compile: bool = False
    """Train through ``torch.compile``, which is faster on a GPU after minutes of compilation, once
    a stage. With dropout 0 the result is equal up to rounding; other dropout is drawn in another
    order. It is not part of the digest."""

    @model_validator(mode="after")
    def _averaged(self) -> Optim:
        if self.report == "ema" and not self.ema_decay:
            raise ValueError("report = 'ema' needs ema_decay > 0")
        if self.gradient_compression != "none" and self.precision == "fp64":
            raise ValueError(
                f"gradient_compression = {self.gradient_compression!r} rounds what precision = "
                "'fp64' is to keep: set it to 'none'"
            )
        if (self.schedule == "step") != bool(self.step_epochs):
            raise ValueError(
                "schedule = 'step' and step_epochs go together, but got "
                f"schedule = {self.schedule!r} and step_epochs = {list(self.step_epochs)}"
            )
        return self
