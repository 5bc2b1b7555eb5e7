"""The published run in plain PyTorch: both stages, written from the equations with loops.

It takes label-level representations from a network and computes everything else by itself:
classifier, projection, losses, memory bank, prototypes, optimiser step and average. It is slow, and
it uses nothing of the product's losses, memory, prototypes or optimiser. The numbers are those of
the published run on COCO; a small run passes only the sizes, learning rate and thresholds.

Axes: B images of a batch, L labels, D hidden size, P projection size, R rows that Eq. 4 compares.
"""

import copy
import math
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch.nn import functional

SAMPLE_TAU, PROTOTYPE_TAU = 0.2, 0.07
SAMPLE_WEIGHT, PROTOTYPE_WEIGHT = 8.0, 4.0
GAMMA_NEGATIVE = {1: 4, 2: 0}
FLOOR = 1e-5
WEIGHT_DECAY, PCT_START, AVERAGE_DECAY = 5e-3, 0.2, 0.9998
FROZEN = ("backbone.body.conv1.", "backbone.body.bn1.", "backbone.body.layer1.")
"""Weights of the network that do not train; its BatchNorm is frozen and has none."""


def class_loss(logits_BL, targets_BL, gamma_negative):
    """Eq. 8 with a focusing weight on negatives, summed over labels, mean over images."""
    score_BL = torch.sigmoid(logits_BL)
    log_yes_BL = torch.log(score_BL.clamp(min=FLOOR))
    log_no_BL = torch.log((1 - score_BL).clamp(min=FLOOR))
    focus_BL = score_BL.detach() ** gamma_negative
    total = logits_BL.new_zeros(())
    for i in range(len(targets_BL)):
        is_yes, is_no = targets_BL[i] == 1, targets_BL[i] == 0
        total = total - log_yes_BL[i][is_yes].sum() - (focus_BL[i] * log_no_BL[i])[is_no].sum()
    return total / len(targets_BL)


def sample_to_sample(rows_RP, labels):
    """Eq. 4 with cosines: mean over the anchors that have a positive."""
    unit_RP = functional.normalize(rows_RP, dim=1)
    label_R = torch.tensor(labels)
    terms = []
    for anchor in range(len(labels)):
        others = torch.tensor([row for row in range(len(labels)) if row != anchor])
        exponents = unit_RP[others] @ unit_RP[anchor] / SAMPLE_TAU
        is_positive = label_R[others] == label_R[anchor]
        if is_positive.any():
            log_share = exponents - torch.logsumexp(exponents, 0)
            terms.append(-log_share[is_positive].sum() / is_positive.sum())
    return torch.stack(terms).mean() if terms else rows_RP.sum() * 0


def prototype_to_sample(embeddings_BLP, targets_BL, prototypes_LP, has_prototype_L):
    """Eq. 6 with cosines: sum over labels, divided by the positives of the batch."""
    total = embeddings_BLP.sum() * 0
    for label in range(targets_BL.shape[1]):
        is_yes = targets_BL[:, label] == 1
        is_known = targets_BL[:, label] != -1
        if is_yes.any() and has_prototype_L[label]:
            prototype_P = functional.normalize(prototypes_LP[label], dim=0)
            unit_BP = functional.normalize(embeddings_BLP[:, label], dim=1)
            exponents = unit_BP @ prototype_P / PROTOTYPE_TAU
            total = total - torch.logsumexp(exponents[is_yes], 0)
            total = total + torch.logsumexp(exponents[is_known], 0)
    return total / (targets_BL == 1).sum().clamp(min=1)


def one_cycle(step, total_steps, max_lr, pct_start=PCT_START):
    """The learning rate of a step: two half cosines, from max / 25 to max to max / 250,000.

    Args:
        step: from 0.
        total_steps: of the whole schedule.
        max_lr: the highest learning rate.
        pct_start: share of the schedule in which the rate rises.

    Source: Smith and Topin, Super-Convergence, 2018, with cosines as in ``OneCycleLR``, in its
    order of operations.
    """
    peak, end = float(pct_start * total_steps) - 1, total_steps - 1
    first, last = max_lr / 25, max_lr / 25 / 1e4
    if step <= peak:
        share = (step - 0) / (peak - 0)
        return max_lr + (first - max_lr) / 2.0 * (math.cos(math.pi * share) + 1)
    share = (step - peak) / (end - peak)
    return last + (max_lr - last) / 2.0 * (math.cos(math.pi * share) + 1)


@dataclass
class PublishedRun:
    """The state of a run; ``begin_stage1``, steps, ``begin_stage2``, steps."""

    network: torch.nn.Module
    """Gives representations and holds the weights; it is changed in place."""
    batch_size: int
    lr: float
    planned_steps: int
    """Of OneCycle in either stage."""
    epsilon: float
    """Admission threshold of the bank."""
    prototype_epsilon: float
    stage: int = 0
    """The stage that has begun."""
    cases: Counter = field(default_factory=Counter)
    """How often each case came up, so that a test can ask for all of them."""

    def begin_stage1(self):
        """Train the class loss alone; the projection head has no gradient."""
        self._begin(1, ("projection.", "prototypes."))

    def begin_stage2(self, images_BCHW, targets_BL):
        """Compute the prototypes over all training images (Eq. 5) and fill the bank with them."""
        self.network.eval()
        with torch.no_grad():
            features_BLD = self.features(images_BCHW)
            score_BL = torch.sigmoid(self.logits(features_BLD))
        self.network.train()
        num_labels, dim = features_BLD.shape[1:]
        self.prototypes_LD = torch.nn.Parameter(features_BLD.new_zeros(num_labels, dim))
        self.has_prototype_L = torch.zeros(num_labels, dtype=torch.bool)
        self._fill_prototypes(features_BLD, score_BL, targets_BL)
        self.cases["labels without a first prototype"] = int((~self.has_prototype_L).sum())
        self.bank_BLD = self.prototypes_LD.detach().repeat(self.batch_size, 1, 1)
        self.in_bank_BL = self.has_prototype_L.repeat(self.batch_size, 1)
        self._begin(2, ("prototypes.",))

    def _begin(self, stage, without):
        self.stage, self.steps = stage, 0
        self.weights = {
            name: weight
            for name, weight in self.network.named_parameters()
            if not name.startswith((*FROZEN, *without))
        }
        groups = [{"params": list(self.weights.values()), "weight_decay": WEIGHT_DECAY}]
        if stage == 2:
            groups.append({"params": [self.prototypes_LD], "weight_decay": 0.0})
        for weight in self.network.parameters():
            weight.requires_grad_(False)
        for weight in self.weights.values():
            weight.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=(0.9, 0.999), eps=1e-8)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, self.lr, total_steps=self.planned_steps, pct_start=PCT_START
        )
        self.average = {name: copy.deepcopy(w.detach()) for name, w in self.trained().items()}

    def trained(self):
        """Return the weights that train, and in stage 2 the prototypes, by name."""
        return {**self.weights, **({"prototypes": self.prototypes_LD} if self.stage == 2 else {})}

    def features(self, images_BCHW):
        return self.network(images_BCHW).features_BLD

    def logits(self, features_BLD):
        """Eq. 7 before the sigmoid."""
        head = self.network.head.classifier
        return torch.einsum("bld,ld->bl", features_BLD, head.weight_LD) + head.bias_L

    def project(self, rows):
        """Linear, ReLU, Linear."""
        first, _, last = self.network.projection
        hidden = torch.relu(rows @ first.weight.T + first.bias)
        return hidden @ last.weight.T + last.bias

    def step(self, images_BCHW, targets_BL):
        """Train on a batch; return the parts of Eq. 9 without their weights, and the whole."""
        assert len(images_BCHW) == self.batch_size
        features_BLD = self.features(images_BCHW)
        logits_BL = self.logits(features_BLD)
        parts = {"loss_class": class_loss(logits_BL, targets_BL, GAMMA_NEGATIVE[self.stage])}
        loss = parts["loss_class"]
        if self.stage == 2:
            parts |= self._contrasts(features_BLD, targets_BL)
            loss = loss + SAMPLE_WEIGHT * parts["loss_sample"]
            loss = loss + PROTOTYPE_WEIGHT * parts["loss_prototype"]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.steps += 1
        self._count(logits_BL.detach(), targets_BL)
        for name, weight in self.trained().items():
            mean = self.average[name]
            self.average[name] = AVERAGE_DECAY * mean + (1 - AVERAGE_DECAY) * weight.detach()
        if self.stage == 2:
            self._admit(features_BLD.detach(), logits_BL.detach().sigmoid(), targets_BL)
        return {name: part.detach() for name, part in {**parts, "loss": loss}.items()}

    def _contrasts(self, features_BLD, targets_BL):
        """Both contrasts, with bank and prototypes as they are before the step."""
        rows, labels = [], []
        for i, j in (targets_BL == 1).nonzero().tolist():
            rows.append(features_BLD[i, j])
            labels.append(j)
        for i, j in (targets_BL == 1).nonzero().tolist():  # matched: the image now at the slot
            if self.in_bank_BL[i, j]:
                rows.append(self.bank_BLD[i, j])
                labels.append(j)
        self.cases["rows of the bank in Eq. 4"] += len(rows) - int((targets_BL == 1).sum())
        prototypes_LP = self.project(self.prototypes_LD)
        embeddings_BLP = self.project(features_BLD)
        return {
            "loss_sample": sample_to_sample(self.project(torch.stack(rows)), labels),
            "loss_prototype": prototype_to_sample(
                embeddings_BLP, targets_BL, prototypes_LP, self.has_prototype_L
            ),
        }

    def _admit(self, features_BLD, score_BL, targets_BL):
        """Overwrite the slots of admitted rows; a label's first prototype may come late."""
        for i, j in (targets_BL == 1).nonzero().tolist():
            if score_BL[i, j] >= self.epsilon:
                self.bank_BLD[i, j] = features_BLD[i, j]
                self.in_bank_BL[i, j] = True
                self.cases["rows admitted"] += 1
            else:
                self.cases["rows refused"] += 1
        for label in self._fill_prototypes(features_BLD, score_BL, targets_BL):
            state = self.optimizer.state[self.prototypes_LD]
            state["exp_avg"][label] = 0
            state["exp_avg_sq"][label] = 0
            self.average["prototypes"][label] = self.prototypes_LD[label].detach()
            self.cases["late prototypes"] += 1

    @torch.no_grad()
    def _fill_prototypes(self, features_BLD, score_BL, targets_BL):
        """Eq. 5 for labels that have no prototype yet; return those that get one."""
        new = []
        for label in range(targets_BL.shape[1]):
            is_admitted = (targets_BL[:, label] == 1) & (
                score_BL[:, label] >= self.prototype_epsilon
            )
            if is_admitted.any() and not self.has_prototype_L[label]:
                total_D = features_BLD[:, label][is_admitted].sum(0)
                self.prototypes_LD[label] = total_D / is_admitted.sum()
                self.has_prototype_L[label] = True
                new.append(label)
        return new

    def _count(self, logits_BL, targets_BL):
        beyond = math.log((1 - FLOOR) / FLOOR)
        wrong = ((targets_BL == 1) & (logits_BL < -beyond)) | (
            (targets_BL == 0) & (logits_BL > beyond)
        )
        self.cases["logarithms at the floor"] += int(wrong.sum())
        self.cases["ignored targets"] += int((targets_BL == -1).sum())
