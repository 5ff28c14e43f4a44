"""Tasks of reasoning-gym (Stojanovski et al. 2025, arXiv 2505.24760): `rg:gsm_symbolic` is its dataset gsm_symbolic,
and its options are the fields of that dataset's config.

Only datasets whose answers are all plain numbers, and they are compared exactly as everywhere here: not by the
dataset's own scorer. Some gold answers are wrong upstream: at least 0.9 % of 6,000 items of gsm_symbolic, where a
template rounds 5.5 tins of paint down to 5.

Nothing of reasoning-gym's own seeding is used: it draws item i from Random(seed + i), so two neighbouring seeds share
all items but one. Here each item comes from a dataset of size 1 with a seed of its own. As with the other generated
tasks, the split follows from a hash of the question: a test question is one under all options.
"""

import difflib
import hashlib
import importlib.metadata
import json
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from itertools import islice
from typing import Any

from fcot_lite.answers import number
from fcot_lite.errors import DataError, RecipeError, ResourceError
from fcot_lite.records import Problem
from fcot_lite.tasks.arithmetic import word_problem_examples
from fcot_lite.tasks.generated import DEFAULT_SIZE, bucket
from fcot_lite.tasks.splits import normalised

PREFIX = "rg:"
OURS = ("seed", "size")  # fields of every config
HANDFUL = 32  # of mixed answers a third or more are no numbers: (2/3)^32 of such datasets would get past
MOST_ATTEMPTS = 2_000  # an item takes up to 30 ms (polynomials): an exhausted space shows within a minute
# What generators raise on values that their config's own check let through.
FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def version() -> str | None:
    """Of the installed reasoning-gym: another one may draw other problems. None where it is missing."""
    try:
        return importlib.metadata.version("reasoning-gym")
    except importlib.metadata.PackageNotFoundError:
        return None


def load(name: str, split: str, options: Mapping[str, Any], limit: int | None) -> list[Problem]:
    """Problems of the task `name`, such as "rg:gsm_symbolic", with metadata `source_dataset` and, where the dataset
    brings a worked answer, `solution`.

    Raises RecipeError for an unknown dataset, wrong options or answers that are not numbers, DataError where the
    options do not allow so many different problems, ResourceError where reasoning-gym is not installed.
    """
    dataset = name.removeprefix(PREFIX)
    chosen = _options(dataset, options)
    key = f"{name}/{json.dumps(chosen, sort_keys=True)}"
    for index in range(HANDFUL):  # so that the verdict depends on neither split nor limit
        _item(dataset, chosen, f"{key}/handful/{index}")
    return list(islice(_problems(dataset, chosen, split, key), DEFAULT_SIZE[split] if limit is None else limit))


def examples(name: str, options: Mapping[str, Any], count: int) -> list[tuple[str, str]]:
    """The word problems of this project: they show how a solution ends, whatever the dataset asks for."""
    _options(name.removeprefix(PREFIX), options)
    return word_problem_examples({}, count)


def _problems(dataset: str, options: dict[str, Any], split: str, key: str) -> Iterator[Problem]:
    seen: set[str] = set()
    while True:
        index = len(seen)
        for attempt in range(MOST_ATTEMPTS):
            item = _item(dataset, options, f"{key}/{split}/{index}/{attempt}")
            text = normalised(item["question"])
            if bucket(text) == split and text not in seen:
                break
        else:
            raise DataError(
                f"{PREFIX}{dataset}: no more than {index} different {split} problems found with options "
                f"{json.dumps(options)}. Widen them, or ask for fewer problems"
            )
        seen.add(text)
        metadata = {"source_dataset": dataset}
        target = item["answer"].strip()
        worked, mark, result = item["metadata"].get("answer_cot", "").partition("####")
        if mark and number(result) == number(target):
            metadata["solution"] = f"{worked.strip()}\nThe answer is {target}."
        yield Problem(f"{PREFIX}{dataset}/{split}/{index}", item["question"].strip(), target, "number", metadata)


def _item(dataset: str, options: dict[str, Any], key: str) -> dict[str, Any]:
    # 31 bits: what every random generator takes as a seed. Two equal ones give equal questions, which are skipped.
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) >> 1
    try:
        # A new dataset for each item: some draw in their constructor, gsm_symbolic its template.
        item: dict[str, Any] = _gym().create_dataset(dataset, seed=seed, size=1, **options)[0]
    except FAULTS as error:
        # Many of its checks are assertions without a message: then the line says more.
        reason = str(error) or traceback.extract_tb(error.__traceback__)[-1].line
        raise RecipeError(
            f"{PREFIX}{dataset}: reasoning-gym refuses the options {json.dumps(options)} ({reason})"
        ) from error
    if not isinstance(item["answer"], str) or number(item["answer"]) is None:
        raise RecipeError(
            f"{PREFIX}{dataset}: its answers are not numbers (one is {str(item['answer'])[:40]!r}); "
            "such datasets are not supported yet"
        )
    return item


def _options(dataset: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` as the dataset takes them, without those that say its default, so that they name the same problems."""
    name = PREFIX + dataset
    datasets = _gym().factory.DATASETS
    if dataset not in datasets:
        close = difflib.get_close_matches(dataset.lower().replace("-", "_"), datasets, n=1)
        hint = f"did you mean {PREFIX + close[0]!r}?" if close else "choose one of reasoning-gym's, as rg:gsm_symbolic"
        raise RecipeError(f"unknown task {name!r}: {hint}")
    known = {field.name: field for field in fields(datasets[dataset][1]) if field.name not in OURS}
    chosen = {}
    for option, value in options.items():
        if option in OURS:
            raise RecipeError(f"{name}: option {option!r} is not for recipes; task.train and its like set the sizes")
        if option not in known:
            match = difflib.get_close_matches(str(option), known, n=1)
            raise RecipeError(
                f"{name}: unknown option {option!r}: "
                + (f"did you mean {match[0]!r}?" if match else f"it has {', '.join(known)}")
            )
        field = known[option]
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        value = _like(default, value, f"{name}: {option}")
        if value != default:
            chosen[option] = value
    return chosen


def _like(default: Any, value: Any, where: str) -> Any:
    """`value` in the type of `default`, which the configs' own checks take for granted."""
    if default is None or default is MISSING:
        return value
    kind = type(default)
    if kind is float and type(value) is int:
        return float(value)
    if kind is tuple and type(value) is list:
        return tuple(value)
    if type(value) is not kind:
        raise RecipeError(f"{where} is {value!r}; give a value like its default, {default!r}")
    return value


def _gym() -> Any:
    # Imported when such a task is used: it takes 1.5 s.
    try:
        import reasoning_gym
    except ImportError as error:
        raise ResourceError(
            f"{PREFIX} tasks need the package reasoning-gym, which cannot be imported here ({error}); `make setup` "
            "installs it where there is a C compiler (Debian: apt install gcc python3-dev)"
        ) from error
    return reasoning_gym
