"""Event sources of functions: DynamoDB stream, SQS queue, schedule."""
