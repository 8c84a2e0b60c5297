from typing import Any

from notes import note  # type: ignore[import-not-found] # the layer's


def handler(event: dict[str, Any], context: object) -> Any:
    """Fails for items by their `fail` attribute: "item" reports the record as failed, "all" raises an error."""
    records = event["Records"]
    note([[record["dynamodb"]["Keys"]["id"]["S"], record["eventName"]] for record in records])
    images = {record["dynamodb"]["SequenceNumber"]: record["dynamodb"].get("NewImage", {}) for record in records}
    if any(image.get("fail") == {"S": "all"} for image in images.values()):
        raise RuntimeError("the whole batch")
    failed = [number for number, image in images.items() if image.get("fail") == {"S": "item"}]
    return {"batchItemFailures": [{"itemIdentifier": number} for number in failed]}
