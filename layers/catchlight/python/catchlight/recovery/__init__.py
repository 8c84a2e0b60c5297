"""Restarts polling and archiving of tasks whose processing has stopped."""
