"""Batches, and the failures of a batch."""

from catchlight.aws.batches import batch_item_failures, batches


def test_all_batches_except_the_last_are_full() -> None:
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batches("abcd", 2)) == [["a", "b"], ["c", "d"]]
    assert list(batches((), 2)) == []


def test_failed_records_are_returned_in_lambdas_format() -> None:
    assert batch_item_failures(iter(["a", "b"])) == {
        "batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "b"}]
    }
    assert batch_item_failures([]) == {"batchItemFailures": []}
