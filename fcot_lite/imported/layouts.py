"""A file of rationales, and which of its columns hold what: common layouts tell themselves, a recipe names others."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fcot_lite.errors import DataError
from fcot_lite.files import read_json, sha256_file
from fcot_lite.recipe import ImportBlock
from fcot_lite.tasks.rows import MAX_ROW_BYTES, BadRowError, Rows, column_names, data_file, file_rows, keys, kind_of

LONGEST_LINE = 16 * MAX_ROW_BYTES  # a row of OpenR1-Math holds up to 8 generations, twice
LARGEST_JSON = 500_000_000  # bytes; a JSON file is read whole, and takes some four times its size
# Columns of rows that follow no layout below: the first that is there.
QUESTIONS = ("question", "problem", "prompt", "instruction", "query")
TEXTS = ("rationale", "generation", "completion", "response", "output", "reasoning", "text", "solution")


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that a file's rows are read by. With `answer_text`, the paper's second call, `answer_finish_reason`
    is how that one ended. Where rows have an `index`, equal texts of other indices are no duplicates. Where they have a
    `kind`, those of another kind than "sample" hold no text."""

    name: str
    question: str | None
    text: str
    id: str | None = None
    finish_reason: str | None = None
    answer_text: str | None = None
    answer_finish_reason: str | None = None
    index: str | None = None
    num_prompt_tokens: str | None = None
    num_tokens: str | None = None
    seed: str | None = None
    kind: str | None = None

    def columns(self) -> dict[str, str]:
        """What is read, and from which column."""
        return {name: column for name, column in asdict(self).items() if name != "name" and column is not None}


# Taken is the first whose text is there, and whose id or else question.
LAYOUTS = (
    Layout(
        "samples of fcot-lite",
        question="question",
        text="text",
        id="problem_id",
        finish_reason="finish_reason",
        answer_text="answer_text",
        index="sample_index",
        num_prompt_tokens="num_prompt_tokens",
        num_tokens="num_tokens",
        seed="seed",
        kind="kind",  # of `fcot samples export`
    ),
    Layout(
        "completions of reasoning-teacher",
        question="question",
        text="reasoning_completion",
        finish_reason="reasoning_finish_reason",
        answer_text="completion",
        answer_finish_reason="finish_reason",
        index="completion_index",
    ),
    Layout("OpenR1-Math", "problem", "generations", finish_reason="finish_reasons"),
    Layout("metadata of OpenThoughts", "problem", "deepseek_solution"),
    Layout("OpenThoughts", "conversations", "conversations", finish_reason="finish_reason"),
    Layout("chats", "messages", "messages", finish_reason="finish_reason"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """A file of rationales and how it is read. `metadata` is what the file says of itself."""

    path: Path
    sha256: str
    layout: Layout
    metadata: Mapping[str, Any]

    def __str__(self) -> str:
        columns = ", ".join(f"{name} in {column!r}" for name, column in self.layout.columns().items())
        return f"{self.path.name} as {self.layout.name}: {columns}"

    def rows(self) -> Rows:
        """Each row with its number. Raises DataError where the file can't be read as a whole."""
        if self.path.suffix.lower() == ".json":
            rows: Rows = iter(enumerate(_json_file(self.path)[0], 1))
        else:
            rows = file_rows(self.path, list(dict.fromkeys(self.layout.columns().values())), LONGEST_LINE)
        kind = self.layout.kind
        for number, row in rows:
            if kind is None or isinstance(row, BadRowError) or row.get(kind, "sample") == "sample":
                yield number, row


def source(block: ImportBlock) -> Source:
    """The recipe's file. Raises DataError where it can't be read, is empty or nobody can tell its columns."""
    path = data_file(block.file)
    metadata: Mapping[str, Any] = {}
    if path.suffix.lower() == ".json":
        rows, metadata = _json_file(path)
        there = keys(rows)
    else:
        there = column_names(path)
    if not there:
        raise DataError(f"{path}: no row of it can be read; is it {path.suffix.lower().removeprefix('.')}, in UTF-8?")
    return Source(path, fingerprint(block), layout(path, there, block), metadata)


def fingerprint(block: ImportBlock) -> str:
    """The hash of the file's bytes. Raises DataError where there is none."""
    path = data_file(block.file)
    try:
        return sha256_file(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def layout(path: Path, there: Sequence[str], block: ImportBlock) -> Layout:
    """How rows with these columns are read: by what the recipe names, else by what is common. Raises DataError."""
    columns = ", ".join(map(repr, there))[:500]
    for key in ("question", "text", "id", "finish_reason"):
        column = getattr(block, key)
        if column is not None and column not in there:
            raise DataError(f"{path}: no column {column!r}, which teacher.{key} names; there are: {columns}")
    known = next((one for one in LAYOUTS if one.text in there and (one.id or one.question) in there), None)
    question = block.question or (known.question if known else _first(QUESTIONS, there))
    text = block.text or (known.text if known else _first([name for name in TEXTS if name != question], there))
    if known is None or text != known.text:  # its other columns are of another text
        known = Layout("columns", None, "", finish_reason="finish_reason")
    id = block.id or known.id
    if text is None or (question is None and id not in there):
        what, keys = ("rationale", "teacher.text") if text is None else ("question", "teacher.question or teacher.id")
        raise DataError(f"{path}: which column holds the {what}? Name it in {keys}; there are: {columns}")
    found = replace(
        known, question=question, text=text, id=id, finish_reason=block.finish_reason or known.finish_reason
    )
    if path.suffix.lower() not in (".csv", ".parquet"):
        return found  # a later row may have what the first ones lack
    missing: dict[str, Any] = {name: None for name, column in found.columns().items() if column not in there}
    return replace(found, **missing)


def _first(names: Sequence[str], there: Sequence[str]) -> str | None:
    return next((name for name in names if name in there), None)


def _json_file(path: Path) -> tuple[list[dict[str, Any] | BadRowError], Mapping[str, Any]]:
    """(rows, metadata) of a JSON file: a list of rows, or as reasoning-teacher keeps completions, lists of them by
    question. Raises DataError."""
    if path.stat().st_size > LARGEST_JSON:
        raise DataError(f"{path}: a .json file is read whole, up to {LARGEST_JSON:,} bytes; save it as .jsonl")
    value = read_json(path)
    if isinstance(value, list):
        return [_object(row) for row in value], {}
    data = value.get("data", value) if isinstance(value, dict) else None
    if not isinstance(data, dict) or not all(isinstance(samples, list) for samples in data.values()):
        raise DataError(
            f'{path}: neither a list of rows nor completions as {{"metadata": …, "data": {{"0": [{{…}}]}}}}'
        )
    rows = []
    for samples in data.values():
        for i, sample in enumerate(samples):
            row = _object(sample)
            rows.append({"completion_index": i, **row} if isinstance(row, dict) else row)
    metadata = value.get("metadata")
    plain = (str, int, float, bool)
    return rows, {k: v for k, v in metadata.items() if isinstance(v, plain)} if isinstance(metadata, dict) else {}


def _object(value: Any) -> dict[str, Any] | BadRowError:
    return value if isinstance(value, dict) else BadRowError("not an object", f"this is {kind_of(value)}")
