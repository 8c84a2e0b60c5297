"""Runs moto's server, corrected where it differs from AWS."""

import importlib
import sys
from enum import StrEnum
from types import ModuleType


class _JobStatus(StrEnum):
    """The states in which a job of AWS Batch ends."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


def _import_step_functions() -> None:
    """Imports moto's Step Functions without its AWS Batch.

    Step Functions needs one enumeration of Batch. Importing Batch imports EC2 with its catalogues, which takes a
    quarter of the stack's start time.
    """
    batch, utils = ModuleType("moto.batch"), ModuleType("moto.batch.utils")
    utils.JobStatus = _JobStatus  # type: ignore[attr-defined]
    replacements = {module.__name__: module for module in (batch, utils) if module.__name__ not in sys.modules}
    sys.modules.update(replacements)
    try:
        importlib.import_module("moto.stepfunctions.parser.models")
    finally:
        for name in replacements:
            del sys.modules[name]


_import_step_functions()
