"""The recipe's `task:` block: which problems, by a task's name or from data of your own."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.types import NonNegativeInt, PositiveInt

from fcot_lite.plain_yaml import Key
from fcot_lite.records import AnswerKind


def _plain(value: Any) -> Any:
    """Raises ValueError for what JSON can't hold: YAML has dates, sets and bytes, infinities and half characters."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("must have text as keys; put them in quotes")
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if isinstance(value, str):
        value.encode()  # UnicodeEncodeError is a ValueError
    elif value is not None and not isinstance(value, bool | int | float):
        raise ValueError(f"must be text, a number, true, false, null, a list or a block, not a {type(value).__name__}")
    return value


Option = Annotated[Any, AfterValidator(_plain)]
Options = dict[str, Option]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _first(key: str) -> BeforeValidator:
    """A text is the short form of a block in which only `key` is given."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def is_none(value: Any) -> bool:
    return value is None


DATA_FILES = (".jsonl", ".csv", ".parquet")


def _data_file(value: str) -> str:
    if not value.lower().endswith(DATA_FILES):
        raise ValueError("must end in .jsonl (one JSON object a line), .csv or .parquet")
    return value


DataFile = Annotated[str, AfterValidator(_data_file)]


class Files(Block):
    """A file of your own for each split. Where `validation` or `test` is missing, it is taken out of train."""

    train: DataFile
    validation: DataFile | None = None
    test: DataFile | None = None


class Hub(Block):
    """A data set of the hub. `train`, `validation` and `test` are its own names for the splits; with none of them given
    those three are taken as far as it has them, and what is missing is taken out of train."""

    name: Annotated[str, Field(min_length=1)]
    config: str | None = None
    revision: str | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None


Column = Annotated[str | None, Field(exclude_if=is_none)]


class TaskBlock(Block):
    """Which problems, and how many of each split (null: all there are).

    `name` is a task of this package. Data of your own has `path` or `hub` in its place, and says in which columns
    `question` and `target` (the gold answer, of the kind `answer`) stand; `choices` is one column of lists or several
    columns, `solution` a worked solution for solved examples, `id` what names a row.
    """

    name: Column = None
    path: Annotated[Files | None, _first("train"), Field(exclude_if=is_none)] = None
    hub: Annotated[Hub | None, _first("name"), Field(exclude_if=is_none)] = None
    question: Column = None
    target: Column = None
    answer: Annotated[AnswerKind | None, Field(exclude_if=is_none)] = None
    choices: Annotated[
        list[str] | None,
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
        Field(exclude_if=is_none, min_length=1, max_length=26),
    ] = None
    solution: Column = None
    id: Column = None
    max_bad_rows: Annotated[NonNegativeInt | None, Field(exclude_if=is_none)] = None
    split: Literal["paper", "template"] = "paper"
    options: Options = {}
    train: PositiveInt | None = None
    validation: PositiveInt | None = None
    test: PositiveInt | None = None

    @property
    def label(self) -> str:
        """What reports call the task: its name, the data set's on the hub, or the file that train is read from."""
        if self.hub is not None:
            return self.hub.name
        return self.path.train if self.path is not None else str(self.name)


# The keys that only data of your own has.
OWN_DATA = ("question", "target", "answer", "choices", "solution", "id", "max_bad_rows")


def task_contradictions(task: Mapping[str, Any] | None) -> Iterator[tuple[Key, str]]:
    """What can't be seen in one of its values alone, by key. Values of a wrong type are passed over."""
    if task is None:
        return
    given = {key for key, value in task.items() if value is not None}
    sources = [key for key in ("name", "path", "hub") if key in given]
    if not sources:
        yield ("task", "name"), "Field required; or `path` or `hub`, for data of your own"
    for extra in sources[1:]:
        yield ("task", extra), f"stands beside task.{sources[0]}; problems come from one of name, path and hub"
    if len(sources) != 1:
        return
    if sources == ["name"]:
        for key in OWN_DATA:
            if key in given:
                yield ("task", key), "is for data of your own (task.path or task.hub), not for a task of this package"
        return
    for key in ("question", "target", "answer"):
        if key not in given:
            yield ("task", key), f"Field required for data of your own: {_OWN_DATA_KEYS[key]}"
    if task.get("options"):
        yield ("task", "options"), "data of your own has none"
    if "answer" in given and (task["answer"] == "choice") != ("choices" in given):
        message = "is for answer: choice only"
        if "choices" not in given:
            message = "Field required for answer: choice: the column with the list of options, or one column for each"
        yield ("task", "choices"), message


_OWN_DATA_KEYS = {
    "question": "the column with the question",
    "target": "the column with the gold answer",
    "answer": f"what the gold answers are, one of {', '.join(get_args(AnswerKind))}",
}


def at(value: Any, kind: type, *key: str, default: Any = None) -> Any:
    """The value at a key, or the default where there is none of that kind."""
    for part in key:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, kind) and not isinstance(value, bool) else default
