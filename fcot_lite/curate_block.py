"""The recipe's `curate:` block: which of the teacher's samples become training rows (docs/curation.md)."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.types import PositiveInt

from fcot_lite.plain_yaml import Key
from fcot_lite.task_block import Block, at

Check = Literal["off", "arithmetic", "golden"]
Select = Literal["first", "shortest", "equations", "text"]


def _off(value: Any) -> Any:
    """YAML reads `off` as false."""
    return "off" if value is False else value


class CurateBlock(Block):
    """`filter` and `check` decide by the answer and by the reasoning, `ngram_overlap` what happens to a question that
    shares 13 words in a row with one of test. A row is a near duplicate where the share of word triples in common with
    an earlier one of its question is at least `near_duplicates`; null looks for none. Of each question
    `max_per_problem` rows stay, chosen by `select`; `balance` caps every question at the median. `size_match` keeps a
    random part as large as that `check` would have left. `max_length` counts the tokens of prompt and completion
    together.
    """

    max_length: PositiveInt
    filter: Literal["none", "answer"] = "answer"
    check: Annotated[Check, BeforeValidator(_off)] = "off"
    ngram_overlap: Literal["report", "drop"] = "report"
    near_duplicates: Annotated[float | None, Field(ge=0.7, le=1)] = None
    max_per_problem: PositiveInt | None = None
    select: Select = "first"
    balance: bool = False
    size_match: Literal["arithmetic", "golden"] | None = None

    def identity(self) -> dict[str, Any]:
        """What shapes the training set. Keys that came later are left out at their default, so that the runs made
        before stay as they are."""
        return self.model_dump(include={"max_length", "max_per_problem"}) | self.model_dump(exclude_defaults=True)


def curate_contradictions(
    curate: Mapping[str, Any] | None, task: Mapping[str, Any] | None, completion: str | None
) -> Iterator[tuple[Key, str]]:
    """What can't be seen in one value of the block alone; `completion` is the label of the student's prompt. Values of
    a wrong type are passed over."""
    if curate is None:
        return
    check, size_match = _off(curate.get("check", "off")), curate.get("size_match")
    for key in ("check", "size_match"):
        if curate.get(key) == "golden":
            yield from _no_replay(("curate", key), at(task, str, "name"))
    if size_match is not None and check != "off":
        yield ("curate", "size_match"), f"draws from rows that no check has passed; leave out curate.check: {check}"
    select, capped = curate.get("select", "first"), curate.get("max_per_problem") is not None or curate.get("balance")
    if select != "first" and not capped:
        yield (
            ("curate", "select"),
            "chooses which rows of a question stay; say how many with max_per_problem or balance",
        )
    if completion is not None and "{rationale}" not in completion:
        given = {"filter": "answer", "check": "off", "near_duplicates": None, "balance": False, "size_match": None}
        for key, default in given.items():
            if (value := curate.get(key, default)) != default and not (key == "check" and value is False):
                yield ("curate", key), "would do nothing: the student's prompt teaches the answer alone; leave it out"


def _no_replay(key: Key, task: str | None) -> Iterator[tuple[Key, str]]:
    from fcot_lite.replay import READERS

    if task not in READERS:
        yield key, f"golden needs a task whose steps can be replayed, and this one's cannot: {', '.join(READERS)}"
