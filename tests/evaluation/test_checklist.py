"""The checklists: complete, in the order of the published lists, and never answered without a fact."""

import re

import pytest

from mammo_lib.evaluation import checklist

# The numbers of TRIPOD+AI as its Table 2 has them, written down apart from the module.
TRIPOD_NUMBERS = (
    "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 16 17 "
    "18a 18b 18c 18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c"
)
FACTS = {name: f"<{name}>" for items in checklist.CHECKLISTS.values() for i in items for name in checklist.needed(i)}


def test_every_item_is_there_once_and_in_order():
    table = checklist.fill({})
    numbers = {name: list(rows["item"]) for name, rows in table.groupby("guideline")}
    assert numbers["CLAIM 2024"] == [str(number) for number in range(1, 45)]
    assert " ".join(numbers["TRIPOD+AI"]) == TRIPOD_NUMBERS
    assert table["asks"].str.endswith("?").all()


def test_without_facts_every_item_is_open_and_says_so():
    table = checklist.fill({})
    assert (table["state"] == checklist.OPEN).all()
    assert (table[["answer", "where"]] == "").all(axis=None)


def test_with_every_fact_only_judgements_stay_open():
    table = checklist.fill(FACTS)
    left = table[table["state"] == checklist.OPEN]
    for guideline, item in [("CLAIM 2024", "40"), ("CLAIM 2024", "44"), ("TRIPOD+AI", "17"), ("TRIPOD+AI", "18b")]:
        assert item in set(left[left["guideline"] == guideline]["item"]), "limits, funding, ethics, interests"
    answered = table[table["state"] == checklist.ANSWERED]
    assert answered["answer"].str.contains("<").all()
    assert not answered["answer"].str.contains("{", regex=False).any()


def test_an_answer_is_its_facts_and_one_missing_or_blank_fact_leaves_it_open():
    def row(facts):
        table = checklist.fill(facts)
        return table[(table["guideline"] == "TRIPOD+AI") & (table["item"] == "12e")].iloc[0]

    facts = {"measures": "AUC.", "uncertainty": "Bootstrap."}
    assert row(facts)["answer"] == "AUC. Bootstrap."
    assert row(facts)["state"] == checklist.ANSWERED
    assert row(facts | {"uncertainty": ""})["state"] == checklist.OPEN
    assert row({"measures": "AUC."})["answer"] == ""


def test_a_fact_that_nobody_asks_for_is_refused():
    with pytest.raises(ValueError, match="fact 'leekage' is asked for by no item"):
        checklist.fill({"leekage": "none"})


def test_braces_in_a_fact_are_text():
    table = checklist.fill({"data": "a {strange} set"})
    assert "a {strange} set" in set(table["answer"])


def test_published_sentences_are_not_copied():
    """Openings of the originals that a paraphrase would not share."""
    text = " ".join(checklist.fill({})["asks"])
    assert not re.search(r"Describe (the|any|how|if)|Specify (the|all)|Provide details|Report any|Level at which", text)
