"""Batches, and the failures of a batch."""

from catchlight.aws.batches import batch_item_failures, batches


def test_batches_are_full_but_for_the_last() -> None:
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batches("abcd", 2)) == [["a", "b"], ["c", "d"]]
    assert list(batches((), 2)) == []


def test_lambda_delivers_the_named_records_again() -> None:
    assert batch_item_failures(iter(["a", "b"])) == {
        "batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "b"}]
    }
    assert batch_item_failures([]) == {"batchItemFailures": []}
