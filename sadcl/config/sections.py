"""The sections of the configuration: data, network, losses and memory."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sadcl.config.component import Arguments, ImportPath, is_path, word_or_path
from sadcl.config.frozen import Count, Fraction, Frozen, NotNegative, Positive, Temperature

SARL = "sadcl.model.heads:SARL"
POOLED = "sadcl.model.heads:Pooled"
EQ4 = "sadcl.losses.sample_contrast:sample_contrast"
DATASETS = (
    *("scenes", "coco", "coco14", "coco17"),
    *("voc2007", "voc2012", "nuswide", "vg500", "folder"),
)
"""The data sets that are built in."""


class Data(Frozen):
    """The data set, its labels, and the held-out part of it that selects."""

    name: Annotated[str, word_or_path(*DATASETS)] = "coco"
    """The data set. ``coco`` is whichever of coco14 and coco17 the data root holds, coco14 if it
    holds both; ``folder`` is a folder of your own images with a table; ``scenes`` are drawn and
    need no data root. Or the import path of a function of yours (``sadcl.data.Dataset``)."""
    arguments: Arguments = Field(default_factory=dict)
    """Keyword arguments of a data set of your own."""
    sampler: ImportPath | None = None
    """Import path of a function of yours that orders the training images of an epoch
    (``sadcl.data.Sampler``); None permutes them."""
    sampler_arguments: Arguments = Field(default_factory=dict)
    """Keyword arguments of the sampler."""
    image_size: Annotated[int, Field(ge=32, le=2048)] = 448
    """Side of the square input in pixels, in training and in testing."""
    mean: tuple[Fraction, Fraction, Fraction] | None = None
    """Mean of red, green and blue from 0 to 1, which is subtracted from an image; None is the one
    that the weights were trained with: that of ``model.start``, else timm's for the backbone."""
    std: tuple[Positive, Positive, Positive] | None = None
    """Standard deviation of red, green and blue, which an image is divided by then; None is like
    that of ``mean``."""
    holdout: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the training images that is held out and selects; with 0 nothing selects."""
    split_seed: int = 0
    """Seed that draws the held-out part, ``limit_train`` and ``limit_test``, whatever ``seed``
    is."""
    unlabelled: Literal["keep", "drop"] = "keep"
    """Keep or drop images without any label. An image with an ignored label is always kept."""
    missing: Literal["error", "drop"] = "error"
    """Stop at listed images that are not on disk, or drop them (many of NUS-WIDE's are gone)."""
    crowd: Literal["negative", "ignore", "positive"] = "positive"
    """COCO: the target of a label if all its annotations in the image are crowds."""
    difficult: Literal["negative", "ignore", "positive"] = "ignore"
    """PASCAL VOC: the target of a label if all its objects in the image are marked difficult."""
    voc2012_test: Literal["val", "server"] = "val"
    """``val`` trains on VOC 2012's train list and tests on its val list. ``server`` trains on
    trainval; the labels of the test images are not public, so all test targets are ignored."""
    nuswide_split: Literal["lists", "csv"] = "lists"
    """``lists`` reads the publisher's train and test lists; ``csv`` reads nus_wid_data.csv, another
    split that was published with the asymmetric loss (ASL)."""
    prepared: Annotated[int, Field(ge=32, le=2048)] | None = None
    """Side in pixels of the resized copies that the data root holds (``sadcl data prepare``); None
    reads photographs. A root of copies is only read with it, and photographs only without it."""
    max_pixels: Count | None = None
    """Largest number of pixels of an image file; a larger one is refused before it takes memory.
    None is Pillow's limit, 178,956,970. No result depends on it."""
    limit_train: Count | None = None
    """Use only so many training images; None uses all. The demo scale on real images sets it."""
    limit_test: Count | None = None
    """Use only so many test images; None uses all."""
    scene_train: Count = 1000
    """Number of training images that are drawn for ``scenes``."""
    scene_test: Count = 500
    """Number of test images that are drawn for ``scenes``."""
    scene_seed: int = 0
    """Seed of the drawn scenes; another seed draws other images."""
    scene_kind: Literal["even", "photographs"] = "even"
    """``even``: frequencies and sizes of the drawn objects differ little. ``photographs``: their
    frequencies, co-occurrence and sizes differ about as much as those of MS-COCO and VOC."""
    feature_views: Annotated[int, Field(ge=0, le=1000)] = 1
    """With ``model.frozen = "all"``: the views of each training image whose feature maps are
    stored. 1 is the plain image, as evaluation sees it, whatever the augmentation. More are drawn
    from each stage's augmentation, by image and view alone, and each epoch takes one of them. 0
    stores nothing: the backbone computes every step, with the augmentation drawn anew."""
    feature_dtype: Literal["fp16", "bf16", "fp32"] = "fp16"
    """Number format in which feature maps are stored."""

    @model_validator(mode="after")
    def _parts(self) -> Data:
        if self.arguments and not is_path(self.name):
            raise ValueError(
                f"arguments belongs to a data set of your own, but name = {self.name!r}"
            )
        if self.sampler_arguments and self.sampler is None:
            raise ValueError("sampler_arguments needs a sampler")
        return self


class Augmentation(Frozen):
    """How a training image is changed; the result depends on (seed, epoch, image index) alone."""

    resize: Count | None = None
    """Side in pixels of the square that is cropped; None is the input size."""
    multiscale: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """Sides of the random crop as shares of that square, largest first. The crop is resized to the
    input size. Empty crops nothing."""
    multiscale_kind: Literal["square", "distorted"] = "square"
    """``square`` draws one side for each image, and any place. ``distorted`` draws width and height
    at most two shares apart, and one of 13 fixed places (Wang et al., Temporal Segment Networks;
    the published run): three crops in four are not square."""
    flip: bool = False
    """Mirror half of the images horizontally."""
    randaugment: Annotated[int, Field(ge=0, le=8)] = 0
    """Number of RandAugment operations for each image (Cubuk et al., 2020)."""
    randaugment_kind: Literal["torchvision", "published"] = "torchvision"
    """``torchvision`` applies each operation that is drawn, from 14, at ``randaugment_magnitude``.
    ``published`` is the early package of the published run: each operation is drawn from 15 (Invert
    and a small Cutout are among them), is applied with probability 0.5, and has a magnitude of its
    own, from 1 to 9."""
    randaugment_magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Strength of the RandAugment operations of ``torchvision``; ``published`` draws its own."""
    cutout: Fraction = 0.0
    """Side of the square hole as a share of the input side; 0 is no hole (Cutout, 2017)."""
    own: ImportPath | None = None
    """Import path of a function of yours that changes an image after all of these
    (``sadcl.data.ImageAugmentation``)."""
    own_arguments: Arguments = Field(default_factory=dict)
    """Keyword arguments of that function."""

    @model_validator(mode="after")
    def _own(self) -> Augmentation:
        if self.own_arguments and self.own is None:
            raise ValueError("own_arguments needs own, the import path of a function")
        return self

    @model_validator(mode="after")
    def _ordered(self) -> Augmentation:
        ordered = tuple(sorted(self.multiscale, reverse=True))
        if self.multiscale_kind == "distorted" and self.multiscale != ordered:
            raise ValueError(
                "multiscale_kind = 'distorted' counts the shares between width and height, so "
                f"multiscale must have the largest first: {list(ordered)}, but got "
                f"{list(self.multiscale)}"
            )
        return self


class Model(Frozen):
    """The network: a backbone, and a head that turns its feature map into logits (Fig. 2)."""

    head: ImportPath = SARL
    """Import path of the head (``sadcl.model.Head``). ``sadcl.model.heads`` has SARL, which is the
    paper's, ``Pooled``, which is its baseline (global average pooling and one linear layer), and
    the published ones that it is compared with. Yours is ``my_lab.heads:Attention``, or the class
    itself."""
    head_arguments: Arguments = Field(default_factory=dict)
    """Keyword arguments of a head other than SARL, whose own are the fields from ``hidden`` to
    ``dropout``."""
    backbone: str = "resnet101.tv_in1k"
    """Name of any timm model that supports ``features_only``. ``my_lab.nets:my_net`` imports the
    module ``my_lab.nets`` first, which registers ``my_net`` with timm."""
    feature: Annotated[int, Field(ge=-5, le=-1)] = -1
    """Which of the backbone's feature maps is used, -5 to -1; -1 is the last and coarsest."""
    pretrained: bool = True
    """Start the backbone from timm's weights, which are downloaded at their first use."""
    weights: str | None = None
    """A local file of backbone weights (.safetensors or .pth) that replaces the download."""
    start: str | None = None
    """A ``best.pt`` of any data set to start from; labels are matched by name. With
    ``stage1.epochs = 0`` stage 2 starts from it."""
    frozen: tuple[str, ...] | Literal["all"] = ("conv1", "bn1", "layer1")
    """Top-level modules of the backbone that do not train. With ``all`` the whole backbone stays as
    it was loaded; its feature maps are then computed once and stored (``data.feature_views``)."""
    freeze_batchnorm: bool = True
    """Keep statistics and parameters of the backbone's BatchNorm as they were loaded."""
    standardize: bool = False
    """Give each channel of the feature maps mean 0 and standard deviation 1 before the head. Both
    are measured once, over the plain training images and their positions, with the weights that the
    first stage starts from; a head of ``model.start`` keeps those that it was trained with. On few
    images a pooled head then fits the training images less quickly."""
    hidden: Count | None = None
    """d, the width of SARL's transformer; None is the backbone's own number of channels."""
    encoder_layers: Annotated[int, Field(ge=0, le=12)] = 1
    """Number of transformer encoder layers, 0 to 12."""
    decoder_layers: Annotated[int, Field(ge=1, le=12)] = 2
    """Number of transformer decoder layers, 1 to 12."""
    position: Literal["interleaved", "halves"] = "interleaved"
    """Order of the channels of the position encoding: a sine and a cosine in turn, as in DETR and
    the published run, or first all sines and then all cosines. A network only works with the order
    that it was trained with."""
    heads: Count = 4
    """Number of attention heads; it must divide ``hidden``."""
    feedforward: Count = 8192
    """Width of the transformer's feed-forward layers."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout probability in the transformer."""
    projection: Count = 1024
    """p, the width of the embedding space of both contrasts."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time. Not in the digest."""

    @field_validator("frozen", mode="before")
    @classmethod
    def _all_or_parts(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "all":
            raise ValueError("give a list of the backbone's parts, or 'all'")
        return value

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the head."""
        if self.head != SARL:
            return self.head_arguments
        names = (
            "hidden",
            "encoder_layers",
            "decoder_layers",
            "position",
            "heads",
            "feedforward",
            "dropout",
            "checkpointing",
        )
        return {name: getattr(self, name) for name in names} | self.head_arguments


class ClassLoss(Frozen):
    """The classification loss of a stage (Eq. 8)."""

    kind: Annotated[str, word_or_path("bce", "asymmetric")] = "bce"
    """Binary cross-entropy (Eq. 8), the asymmetric loss (ASL), or the import path of a function of
    yours (``sadcl.losses.ClassLoss``)."""
    arguments: Arguments = Field(default_factory=dict)
    """Keyword arguments of a class loss of your own; it has none of the fields below."""
    gamma_negative: NotNegative = 4.0
    """Focusing exponent of negative labels in the asymmetric loss."""
    gamma_positive: NotNegative = 0.0
    """Focusing exponent of positive labels in the asymmetric loss."""
    clip: Fraction = 0.05
    """Margin by which the asymmetric loss lowers the probability of negative labels."""
    focus_gradient: bool = True
    """Whether the gradient of the asymmetric loss also goes through its focusing weights, as in its
    paper. False takes the weights as constants (the published run)."""
    floor: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Lowest probability whose logarithm is taken. A label that is wrong by more has no gradient
    (1e-5 in the published run: scores further than 11.5 from 0)."""

    @model_validator(mode="after")
    def _own(self) -> ClassLoss:
        if self.arguments and not is_path(self.kind):
            raise ValueError(
                f"arguments are those of a class loss of your own, but kind is {self.kind!r}"
            )
        return self


class Loss(Frozen):
    """Eq. 9: weights, and the two contrasts (Eq. 4 and 6); each stage has its own class loss."""

    class_weight: NotNegative = 1.0
    """Weight of the classification loss in Eq. 9."""
    class_reduction: Literal["image", "sum"] = "image"
    """``image`` sums Eq. 8 over labels and averages it over images; ``sum`` sums over both."""
    sample_weight: NotNegative = 8.0
    """Weight of the sample-to-sample contrast (Eq. 4) in Eq. 9."""
    prototype_weight: NotNegative = 4.0
    """Weight of the prototype-to-sample contrast (Eq. 6) in Eq. 9."""
    tau: Temperature = 0.2
    """Temperature of Eq. 4, and of Eq. 6 too unless ``prototype_tau`` is set; 0.005 to 100."""
    prototype_tau: Temperature | None = None
    """Temperature of Eq. 6, 0.005 to 100; None is ``tau``."""
    contrast: ImportPath = EQ4
    """Import path of the sample contrast (``sadcl.losses.Contrast``), which ``sample_weight``,
    ``tau`` and ``sample_reduction`` belong to. The package ``sadcl.losses`` has Eq. 4 and newer
    ones: ``sadcl.losses.mulsupcon:mulsupcon`` and others. ``anchors``, ``anchor_mask`` and
    ``normalize`` are Eq. 4's."""
    contrast_arguments: Arguments = Field(default_factory=dict)
    """Keyword arguments of the contrast other than its temperature."""
    candidates: Literal["matched", "all"] = "matched"
    """Rows of the memory bank that are candidates of Eq. 4. With ``matched`` a row takes part if
    the image that is now at its slot has its label (the published run). A ``fifo`` bank has no
    slots: if the batch has n rows of a label, the label's n newest rows take part. With ``all``
    every stored row takes part (the paper's letter). An anchor then has many more positives and
    negatives, and each has a smaller share of its gradient."""
    anchors: Literal["batch+bank", "batch"] | None = None
    """Candidates that are anchors of Eq. 4: rows of the batch and the bank, or of the batch alone.
    None is ``batch+bank`` with matched candidates (the published run) and ``batch`` with all. An
    anchor of the bank pulls at the batch's rows too, but it also counts in the divisor ``mean``:
    with ``candidates = 'all'`` thousands of them make the gradient of the batch's rows more than
    ten times shorter."""
    sample_reduction: Literal["mean", "batch", "sum"] = "mean"
    """What Eq. 4 is divided by: all its counted anchors (the published run), those of the batch, or
    1 (the paper's letter). With ``batch`` anchors of the bank add to the gradient and do not
    shorten it; with ``sum`` it grows with the batch."""
    prototype_reduction: Literal["mean", "positives", "sum"] = "mean"
    """What Eq. 6 is divided by: ``mean`` is the number of its counted labels, ``positives`` the
    number of positive targets in the batch, and ``sum`` divides by 1. The published run takes the
    positives. On COCO they are 2 to 3.5 times as many, and the gradient is as much shorter."""
    absent_labels: Literal["skip", "push"] = "skip"
    """What Eq. 6 does with a label that has no positive in the batch. ``skip`` leaves it out,
    because its logarithm would be of an empty sum. ``push`` pushes all its rows away from its
    prototype: a fault of the published run, kept to measure its cost."""
    normalize: bool = True
    """Scale embeddings and prototypes to length 1 before they are compared."""
    anchor_mask: Literal["activated", "targets", "released"] = "activated"
    """Which anchors of Eq. 4 add to it. ``activated`` takes all of them. ``released`` reads the
    released code's mask in another order than the rows have, as that code does: a fault, kept to
    measure its cost. About a sixth of the anchors then add to the loss, and its mean is still over
    all anchors that the mask means. ``targets`` reads the same mask in its right order, which
    leaves the matched rows of the bank: with ``candidates = 'matched'`` it equals ``activated``."""

    @model_validator(mode="after")
    def _own(self) -> Loss:
        if self.contrast_arguments and self.contrast == EQ4:
            raise ValueError(
                "contrast_arguments are those of another contrast than Eq. 4, whose own are fields"
            )
        return self

    @property
    def tau_of_prototypes(self) -> float:
        """Temperature of Eq. 6."""
        return self.tau if self.prototype_tau is None else self.prototype_tau

    @property
    def anchors_of_eq4(self) -> str:
        """``batch+bank`` or ``batch``."""
        return self.anchors or ("batch+bank" if self.candidates == "matched" else "batch")

    @property
    def contrasts(self) -> bool:
        """True if a contrast has a weight, so that the projection head trains."""
        return self.sample_weight > 0 or self.prototype_weight > 0


class Bank(Frozen):
    """The memory bank of section 3.4."""

    policy: Literal["slot", "fifo", "none"] = "slot"
    """``slot`` keeps a row for each label and position of the global batch, ``fifo`` the last
    ``size`` rows of each label, ``none`` nothing."""
    size: Count = 16
    """Rows that ``fifo`` keeps for each label."""
    scope: Literal["cluster", "worker"] = "cluster"
    """One bank that all workers share, or one for each worker."""
    start: Literal["empty", "prototypes"] = "empty"
    """What the bank holds when stage 2 begins: nothing, or in each slot the label's first prototype
    (the published run)."""
    epsilon: Fraction = 0.8
    """Admission threshold: a row is admitted if y = 1 and its score is at least this."""


class PrototypeConfig(Frozen):
    """The category prototypes of section 3.5."""

    policy: Literal["mean", "ema", "learned"] = "learned"
    """A prototype is the mean of its label's admitted rows (Eq. 5), their exponential moving
    average, or a parameter that starts as their mean and is learned."""
    decay: bool = False
    """Whether weight decay also applies to ``learned`` prototypes, as in the published run. It
    pulls these points of feature space to zero, by 2.5e-7 of their length a step there."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Share of the old prototype that ``ema`` keeps at each update."""
    epsilon: Fraction | None = None
    """Admission threshold of Eq. 5; None is the bank's."""
