"""The likely cause of ids that are not found."""

import duckdb
import pytest

from expectations.suites.spelling import Ids, explain


def explained(ours: list[str], theirs: list[str]) -> tuple[str, str | None]:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE ours AS SELECT unnest($ids::VARCHAR[]) AS id", {"ids": ours})
        connection.execute("CREATE TABLE theirs AS SELECT unnest($ids::VARCHAR[]) AS id", {"ids": theirs})
        return explain(connection, Ids("SELECT id FROM ours", "SELECT id FROM theirs", "items"))


@pytest.mark.parametrize(
    ("ours", "theirs", "cause", "remedy"),
    [
        ("{}.0", "{}", "as whole numbers", "numbers with gaps"),
        ("{}", "{}.0", "as whole numbers", "numbers with gaps"),
        ("0{}", "{}", "without their leading zeros", "as text"),
        ("{}", "000{}", "without their leading zeros", "as text"),
        ("SKU{}", "sku{}", "in the same case", "same case"),
        (" {}", "{} ", "without the blanks around them", "blanks"),
        ("user_{}", "{}", "without what stands around their digits", "prefix"),
        ("{}", "gid://shop/Customer/{}", "with what stands around the others' digits", "prefix"),
        ("u{}", "user-{}", "by their digits alone", "prefix"),
    ],
)
def test_likely_cause_is_named_with_a_pair_and_a_remedy(ours, theirs, cause, remedy):
    numbers = range(1000, 1005)
    clue, found = explained([ours.format(n) for n in numbers], [theirs.format(n) for n in numbers])
    assert clue == (
        f"items has ids such as {', '.join(theirs.format(n) for n in numbers[:3])}; 5 of 5 missing ids would be found "
        f"{cause}, such as {ours.format(1000)!r} as {theirs.format(1000)!r}."
    )
    assert found is not None
    assert remedy in found


def test_ids_that_are_simply_others_have_no_cause():
    assert explained(["anna", "ben", "1"], ["carl", "dora", "2"]) == (
        "items has ids such as 2, carl, dora.",
        None,
    )
    assert explained(["anna"], []) == ("items has none.", None)


def test_one_chance_match_among_many_is_no_cause():
    clue, remedy = explained(["1.0", "a", "b"], ["1"])
    assert (clue, remedy) == ("items has ids such as 1.", None)
