"""Checks callbacks and keeps the deliveries that could not be read."""
