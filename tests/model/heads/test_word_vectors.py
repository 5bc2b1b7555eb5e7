"""Word vectors from a file, and what is said of a file that does not have them."""

from __future__ import annotations

import pytest
import torch

from sadcl.errors import UserError
from sadcl.model.heads.head import Task
from sadcl.model.heads.ml_gcn import MLGCN
from sadcl.model.heads.ssgrl import SSGRL
from sadcl.model.heads.word_vectors import label_vectors, read_vectors

TEXT = """the 0.5 0.5 0.5
traffic 1 2 3
light 3 -2 1e-1
traffic 9 9 9
. . . 7 7 7

t-shirt 4 5 6
dining table 1.5 2.5 3.5
café 0 0 1
"""


def written(tmp_path, text=TEXT):
    file = tmp_path / "vectors.txt"
    file.write_text(text, encoding="utf-8")
    return str(file)


def read(file, *labels, dim=3):
    return read_vectors(file, labels, dim=dim)


def test_a_label_has_its_vector_or_the_mean_of_its_words(tmp_path):
    file = written(tmp_path)
    rows = read(
        file, "traffic", "Traffic_Light", "traffic light", "T-shirt", "dining table", "Café"
    )
    expected = [[1, 2, 3], [2, 0, 1.55], [2, 0, 1.55], [4, 5, 6], [1.5, 2.5, 3.5], [0, 0, 1]]
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, torch.tensor(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("head", [MLGCN, SSGRL])
def test_a_head_reads_them(tmp_path, head):
    task = Task((4,), ("light", "traffic light"), torch.eye(2).double())
    built = head(task, word_vectors=written(tmp_path), word_dim=3, hidden=2)
    torch.testing.assert_close(built.word_vectors_LE, torch.tensor([[3, -2, 0.1], [2, 0, 1.55]]))


def test_a_label_without_a_vector_is_named_with_what_to_do(tmp_path):
    file = written(tmp_path)
    message = (
        f"The label 'Traffic cone' has no word vector in '{file}': its word 'cone' is not there. "
        "Add a line 'traffic cone' with 3 numbers to the file, such as the mean of similar words, "
        "or leave word_vectors out for random ones."
    )
    with pytest.raises(UserError) as error:
        read(file, "light", "Traffic cone")
    assert str(error.value) == message
    with pytest.raises(UserError, match="The label '--' has no .* it has no word that could be"):
        read(file, "--")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("light 1 2", "line 2: the vector has 2 numbers, but word_dim = 3. Set word_dim"),
        ("light 1 2 3 4 5", "line 2: the vector has 5 numbers, but word_dim = 3"),
        ("light 1 x 3", "line 2: 'x' is no finite number"),
        ("light 1 nan 3", "line 2: 'nan' is no finite number"),
        ("light 1 1e39 3", "line 2: '1e39' is no finite number"),
        ("light", "line 2: the vector has 0 numbers"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, line, message):
    file = written(tmp_path, f"other 1\n{line}\n")
    with pytest.raises(UserError, match=message) as error:
        read(file, "light")
    assert repr(file) in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"word_vectors = .*none.txt' cannot be read: No such file"):
        read(str(tmp_path / "none.txt"), "light")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read(str(tmp_path), "light")


def test_a_checkpoint_needs_no_file(tmp_path):
    """Where a checkpoint's state follows, it has the vectors."""
    labels, missing = ("light", "traffic"), str(tmp_path / "none.txt")
    trains = Task((4,), labels, torch.eye(2))
    follows = trains._replace(is_restored=True)
    assert torch.equal(label_vectors(follows, missing, dim=3, seed=0), torch.zeros(2, 3))
    with pytest.raises(UserError, match="cannot be read"):
        label_vectors(trains, missing, dim=3, seed=0)
    file = written(tmp_path)
    trained = MLGCN(trains, word_vectors=file, word_dim=3, hidden=2)
    loaded = MLGCN(follows, word_vectors=missing, word_dim=3, hidden=2)
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded.word_vectors_LE, read(file, *labels))


def test_random_vectors_depend_on_the_seed_alone():
    task = Task((4,), ("a", "b"), torch.zeros(2, 2))
    torch.manual_seed(7)
    first = label_vectors(task, None, dim=300, seed=1)
    state = torch.get_rng_state()
    torch.manual_seed(8)
    assert torch.equal(first, label_vectors(task, None, dim=300, seed=1))
    assert not torch.equal(first, label_vectors(task, None, dim=300, seed=2))
    torch.manual_seed(7)
    assert torch.equal(state, torch.get_rng_state())
    assert float(first.std()) == pytest.approx(1, rel=0.1)
