"""Export the network of a checkpoint for programs that know nothing of this package."""

from sadcl.inference.export.check import TOLERANCE, Check
from sadcl.inference.export.formats import KINDS
from sadcl.inference.export.write import Exported, default_output, export_checkpoint

__all__ = ["KINDS", "TOLERANCE", "Check", "Exported", "default_output", "export_checkpoint"]
