"""Rehearses the deployment: `sam deploy` of the artefact to MiniStack on this machine, then tasks through the stack."""


class RehearsalError(Exception):
    """An expectation of the rehearsal is not met. The message names the expectation and the next step."""
