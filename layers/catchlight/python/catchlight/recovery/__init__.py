"""Restarts work on tasks whose processing has stopped."""
