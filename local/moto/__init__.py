"""Runs moto's server, corrected where it differs from AWS."""
