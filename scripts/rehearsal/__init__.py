"""The rehearsed deployment: `sam deploy` of the artefact to MiniStack on this machine, and a play through the stack."""


class RehearsalError(Exception):
    """Something is not as it has to be; the message says what, and what to do next."""
