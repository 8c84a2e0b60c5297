"""Expands the SAM template and creates its resources."""
