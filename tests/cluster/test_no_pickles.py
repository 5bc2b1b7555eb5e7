"""A file in a storage runs no code: nothing of ours reads pickles."""

import ast
import os
import pickle

import pytest
import torch

from sadcl.errors import UserError
from sadcl.training import checkpoint
from tests.conftest import ROOT

READERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def calls(tree, *names):
    return [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) in names]


def said(call, name):
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


def test_no_module_reads_pickles():
    for path in ROOT.glob("sadcl/**/*.py"):
        tree = ast.parse(path.read_text())
        nodes = list(ast.walk(tree))
        imported = {
            alias.name.split(".")[0]
            for node in nodes
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        imported |= {
            node.module.split(".")[0]
            for node in nodes
            if isinstance(node, ast.ImportFrom) and node.module
        }
        assert not imported & READERS, path
        assert all(said(call, "weights_only") == "True" for call in calls(tree, "torch.load")), path
        assert all(
            said(call, "allow_pickle") in (None, "False")
            for call in calls(tree, "np.load", "numpy.load")
        ), path
        assert not calls(tree, "torch.hub.load", "torch.jit.load", "eval", "exec"), path


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, form):
    path, mark = tmp_path / "best.pt", tmp_path / "ran"
    if form == "torch":
        torch.save({"network": {}, "evil": Evil(mark)}, path)
        torch.load(path, weights_only=False)  # it would
        mark.rmdir()
    else:
        path.write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(UserError, match=r"best\.pt"):
        checkpoint.load_checkpoint(str(path))
    assert not mark.exists()
