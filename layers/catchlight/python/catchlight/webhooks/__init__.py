"""Webhooks: signed POST requests with task events to a URL of the user's, by the Standard Webhooks specification."""
