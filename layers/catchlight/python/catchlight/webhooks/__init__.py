"""Webhooks: signed POST requests with task events to the user's URL, as the Standard Webhooks specification defines."""
