"""AWS clients, secrets, and DynamoDB expressions."""
