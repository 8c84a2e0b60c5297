"""Rehearses the deployment: `sam deploy` of the artefact to MiniStack on this machine, then tasks through the stack."""


class RehearsalError(Exception):
    """A step of the rehearsal failed, or an expectation is not met. The message contains the reason."""
