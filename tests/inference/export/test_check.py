"""A file that computes something else than its checkpoint is refused and not written."""

from __future__ import annotations

import pytest
import torch

from sadcl import UserError, inference
from sadcl.inference.export import check, export_checkpoint
from sadcl.inference.export.network import ExportedNetwork
from tests.inference.export.checkpoints import photographs


def changed(monkeypatch, scores, logits):
    """Let files that are written return something else."""
    forward = ExportedNetwork.forward

    def other(self, images):
        outputs = forward(self, images)
        return {"scores": scores(outputs["scores"]), "logits": logits(outputs["logits"])}

    monkeypatch.setattr(ExportedNetwork, "forward", other)


def same(values):
    return values


@pytest.mark.parametrize(
    ("scores", "logits", "message"),
    [
        (lambda s: s + 2e-4, same, r"its scores differ by up to 2.0e-04, and 1e-04 is allowed"),
        (same, lambda v: v + 0.01 * v.abs().clamp(min=1), r"its logits differ by up to 1.0e-02"),
        (lambda s: s * torch.nan, same, r"its scores differ by up to nan"),
        (lambda s: s.flip(1), same, r"its scores differ by up to"),
    ],
)
def test_other_results_are_refused(uri, tmp_path, monkeypatch, scores, logits, message):
    changed(monkeypatch, scores, logits)
    with pytest.raises(UserError, match=message):
        export_checkpoint(uri, "safetensors", str(tmp_path / "x.safetensors"))
    assert not list(tmp_path.iterdir())


def test_a_difference_in_one_image_of_any_batch_is_found(uri, monkeypatch):
    """The largest is reported: of the image alone, and of all batches."""
    predictor = inference.load(uri, device="cpu")
    images = check.images_to_check(64, [])
    assert len(images) == len({image.numpy().tobytes() for image in images})
    assert images.shape == (4, 3, 64, 64)
    for wrong in range(4):

        def run(batch, wrong=wrong):
            outputs = ExportedNetwork(predictor.network)(batch)
            run.batches.append(len(batch))
            first = sum(run.batches[:-1])
            if first <= wrong < first + len(batch):
                outputs["scores"][wrong - first, 2] += 5e-5
            return outputs

        run.batches = []
        form = check.KINDS["safetensors"]._replace(open=lambda data, run=run: run)
        monkeypatch.setitem(check.KINDS, "safetensors", form)
        found = check.check(b"", "safetensors", predictor, images)
        assert run.batches == [1, 3]
        assert found.differences["scores"] == pytest.approx(5e-5, rel=0.01)


def test_photographs_are_compared_too(uri, tmp_path, photo_files):
    files = [*photo_files, *photographs(2)]
    written = export_checkpoint(uri, "safetensors", str(tmp_path / "x.safetensors"), photos=files)
    assert written.check.images == 4 + len(files)
    with pytest.raises(UserError, match=r"The image 'none.jpg' cannot be read"):
        export_checkpoint(uri, "safetensors", str(tmp_path / "y.safetensors"), photos=["none.jpg"])
