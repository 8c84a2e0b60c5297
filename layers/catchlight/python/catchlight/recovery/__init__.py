"""Restarts polling and archiving of tasks whose processing has stopped, and processes dead letters and deliveries."""
