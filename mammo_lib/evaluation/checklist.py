"""Two reporting checklists, CLAIM 2024 and TRIPOD+AI, filled from a run's own records as far as these go.

Knows no file: facts come in as sentences, by name. An item that needs a fact which is missing is open, and so is every
item that asks for a judgement: only a person can answer that. The official forms are what a journal wants; this table
is what to write into them.
"""

from collections.abc import Mapping
from string import Formatter

import pandas as pd

from mammo_lib.evaluation.checklist_items import CLAIM, TRIPOD_AI, Item

OPEN = "open: a person must answer"
ANSWERED = "from this run"
CHECKLISTS = {"CLAIM 2024": CLAIM, "TRIPOD+AI": TRIPOD_AI}
COLUMNS = ["guideline", "item", "topic", "asks", "answer", "where", "state"]


def fill(facts: Mapping[str, str]) -> pd.DataFrame:
    """Every item of both checklists with its answer; columns `guideline, item, topic, asks, answer, where, state`.

    facts: name -> sentence; one that is blank counts as missing. state: ANSWERED or OPEN; an open item has no answer,
    and `where` then says nothing. ValueError for a fact that no item asks for: a misspelt name would be lost.
    """
    rows = [(name, *_row(item, facts)) for name, items in CHECKLISTS.items() for item in items]
    unknown = sorted(set(facts) - asked())
    if unknown:
        raise ValueError(
            f"fact {unknown[0]!r} is asked for by no item of the checklists: correct its name (one of "
            f"{', '.join(sorted(asked()))}) or drop it"
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def asked() -> set[str]:
    """The names of all facts that some item asks for."""
    return set().union(*(needed(item) for items in CHECKLISTS.values() for item in items))


def needed(item: Item) -> set[str]:
    """Names of the facts that the item's answer is made of."""
    return {name for _, name, _, _ in Formatter().parse(item.answer) if name}


def _row(item: Item, facts: Mapping[str, str]) -> tuple[str, ...]:
    asked = (item.number, item.topic, item.asks)
    if not item.answer or not all(facts.get(name) for name in needed(item)):
        return (*asked, "", "", OPEN)
    return (*asked, item.answer.format_map(facts), item.where, ANSWERED)
