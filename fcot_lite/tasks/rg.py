"""Tasks of reasoning-gym (Stojanovski et al. 2025, arXiv 2505.24760): `rg:gsm_symbolic` is its dataset gsm_symbolic,
and its options are the fields of that dataset's config.

How an answer is graded follows from the dataset. Where all answers are plain numbers, or yes and no, they are compared
as everywhere here; where its scorer asks for the very text, as texts are. Any other dataset's own scorer judges, and a
score of 1 counts as right: metadata `scorer` names it, and `score` runs it. Its leniency is upstream's; only puzzle24,
which takes any four numbers that make 24, is held to those of the question. Some gold answers are wrong upstream: at
least 0.9 % of 6,000 items of gsm_symbolic, where a template rounds 5.5 tins of paint down to 5.

Nothing of reasoning-gym's own seeding is used: it draws item i from Random(seed + i), so two neighbouring seeds share
all items but one. Here each item comes from a dataset of size 1 with a seed of its own. As with the other generated
tasks, the split follows from a hash of the question: a test question is one under all options.
"""

import contextlib
import difflib
import functools
import hashlib
import importlib.metadata
import io
import json
import re
import tokenize
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from itertools import islice
from typing import Any, Literal

from fcot_lite.answers import number
from fcot_lite.errors import DataError, RecipeError, ResourceError
from fcot_lite.readings import folded
from fcot_lite.records import AnswerKind, Problem
from fcot_lite.tasks.arithmetic import word_problem_examples
from fcot_lite.tasks.generated import DEFAULT_SIZE, bucket
from fcot_lite.tasks.splits import normalised

PREFIX = "rg:"
OURS = ("seed", "size")  # fields of every config
HANDFUL = 32  # of mixed answers a third or more are no numbers: (2/3)^32 of such datasets would get past
MOST_ATTEMPTS = 2_000  # an item takes up to 30 ms (polynomials): an exhausted space shows within a minute
# What generators raise on values that their config's own check let through, and scorers on what they cannot read.
FAULTS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, SyntaxError, TypeError, ValueError,
    tokenize.TokenError,
)  # fmt: skip

_UNSEEDED = "its items depend on Python's hash seed: every process would draw others"
REFUSED = {
    "composite": "it only mixes other datasets; name one of those",
    **dict.fromkeys(("boxnet", "rush_hour"), "it brings no gold answer, and no label could end in one"),
    **dict.fromkeys(
        ("arc_agi", "codeio", "group_anagrams", "isomorphic_strings", "knight_swap", "list_functions",
         "polynomial_multiplication", "ransom_note", "word_ladder"),
        _UNSEEDED,
    ),
    # A formula of 61 characters took 10 s, one of 200 more than two minutes.
    "intermediate_integration": "its scorer simplifies whatever formula a model writes, which can take for ever",
}  # fmt: skip
# Where gold answers stand of datasets that have none as `answer`.
EXAMPLES_OF = {
    "graph_color": "possible_answer",
    "propositional_logic": "example_answer",
    "rubiks_cube": "example_correct_answer",
}
EXACT = ("game_of_life_halting",)  # graded as texts: its scorer takes "False", and any other text, for true
# These scorers run a text as Python, take 10 to any power that it names, or repeat a move as often as it says: they are
# shown only what has this form. (Of the first four only the plain form scores 1 anyway.)
_CELLS = re.compile(r"[A-Za-z0-9_ \n]+")
_SUM = re.compile(r"(?!.*\*\*)[0-9+*/() -]{1,200}")
SHOWN = {
    "binary_matrix": _CELLS,
    "n_queens": _CELLS,
    "spiral_matrix": _CELLS,
    "string_insertion": _CELLS,
    "countdown": _SUM,
    "puzzle24": _SUM,
    "simple_integration": re.compile(
        r"(?:[0-9]{1,9}(?![0-9])|\b[A-Za-z]\b|(?<=[A-Za-z])\*\*[0-9]{1,2}(?![0-9*])|[+*/ -](?!\*)){1,200}"
    ),
    "coin_flip": re.compile(r"[0-9 ,./-]{1,50}"),  # one gold answer in some hundreds is 1.52587890625e-05: left out
    "rubiks_cube": re.compile(r"(?!.*[0-9]{2})[A-Za-z0-9' ]+"),
}
LONGEST_ANSWER = 1_000  # characters, or twice the gold answer's: no scorer reads a book


def version() -> str | None:
    """Of the installed reasoning-gym: another one may draw other problems. None where it is missing."""
    try:
        return importlib.metadata.version("reasoning-gym")
    except importlib.metadata.PackageNotFoundError:
        return None


def names() -> list[str]:
    """Of all datasets that can be a task, without the prefix. Raises ResourceError where reasoning-gym is missing."""
    return [name for name in sorted(_gym().factory.DATASETS) if name not in REFUSED]


def load(name: str, split: str, options: Mapping[str, Any], limit: int | None) -> list[Problem]:
    """Problems of the task `name`, such as "rg:gsm_symbolic", with metadata `source_dataset`; where the dataset brings
    a worked answer, `solution`; and where its own scorer grades, `scorer` and what that needs.

    Raises RecipeError for an unknown dataset, wrong options or one that is refused, DataError where the options do not
    allow so many different problems, ResourceError where reasoning-gym is not installed.
    """
    dataset = name.removeprefix(PREFIX)
    chosen = _options(dataset, options)
    key = f"{name}/{json.dumps(chosen, sort_keys=True)}"
    kind = _kind(dataset, chosen, key)
    return list(islice(_problems(dataset, chosen, kind, split, key), DEFAULT_SIZE[split] if limit is None else limit))


def score(problem: Problem, answer: str) -> bool:
    """Whether the dataset's own scorer gives `answer` the full score of 1: the `scorer` of `answers.grade`. A text that
    it cannot read, or must not be shown, is wrong.

    Raises DataError where the installed reasoning-gym draws another problem than this one.
    """
    dataset = problem.metadata["source_dataset"]
    chosen = _options(dataset, problem.metadata["options"])
    maker, entry = _drawn(dataset, json.dumps(chosen), problem.metadata["item"])
    if entry["question"].strip() != problem.question or _target(dataset, entry) != problem.target:
        raise DataError(
            f"problem {problem.id}: the installed reasoning-gym {version()} draws another problem in its place; "
            "install the one that made it, or start a new run"
        )
    return _score(dataset, maker, entry, answer)


def examples(name: str, options: Mapping[str, Any], count: int) -> list[tuple[str, str]]:
    """The word problems of this project: they show how a solution ends, whatever the dataset asks for."""
    _options(name.removeprefix(PREFIX), options)
    return word_problem_examples({}, count)


def _kind(dataset: str, options: dict[str, Any], key: str) -> AnswerKind | Literal["scorer"]:
    """By a handful of items of its own, so that it depends on neither split nor limit."""
    targets = []
    for index in range(HANDFUL):
        maker, entry = _item(dataset, options, f"{key}/handful/{index}")
        if _has_gold(dataset, maker, entry):
            targets.append(_target(dataset, entry))
    if not targets:
        raise RecipeError(
            f"{PREFIX}{dataset}: it brings no gold answer that its own scorer accepts: no label could end in one"
        )
    if all(number(target) is not None for target in targets):
        return "number"
    if all(target.lower() in ("yes", "no") for target in targets):
        return "yes_no"
    is_exact = dataset in EXACT or type(maker).score_answer is _gym().dataset.ProceduralDataset.score_answer
    return "text" if is_exact else "scorer"


def _problems(
    dataset: str, options: dict[str, Any], kind: AnswerKind | Literal["scorer"], split: str, key: str
) -> Iterator[Problem]:
    seen: set[str] = set()
    while True:
        index = len(seen)
        for attempt in range(MOST_ATTEMPTS):
            item_key = f"{key}/{split}/{index}/{attempt}"
            maker, entry = _item(dataset, options, item_key)
            text = normalised(entry["question"])
            if bucket(text) == split and text not in seen and _has_gold(dataset, maker, entry):
                break
        else:
            found = f"{PREFIX}{dataset}: no more than {index} different {split} problems found"
            wider = (
                f" with options {json.dumps(options)}. Widen them" if options else ". Set task.options to wider ones"
            )
            raise RecipeError(f"{found}{wider}, or ask for fewer: task.{split}={max(index, 1)}")
        seen.add(text)
        metadata: dict[str, Any] = {"source_dataset": dataset}
        target = _target(dataset, entry)
        worked, mark, result = entry["metadata"].get("answer_cot", "").partition("####")
        fits = {"number": number(target) is not None, "yes_no": target.lower() in ("yes", "no")}
        if not fits.get(kind, True):
            raise RecipeError(
                f"{PREFIX}{dataset}: nearly all of its answers are of the kind {kind}, but not {target[:40]!r}; choose "
                "options with which they are all alike"
            )
        if kind == "scorer":
            metadata |= {"scorer": PREFIX + dataset, "item": item_key, "options": options}
        elif mark and kind == "number" and number(result) == number(target):
            metadata["solution"] = f"{worked.strip()}\nThe answer is {target}."
        question = entry["question"].strip()
        yield Problem(
            f"{PREFIX}{dataset}/{split}/{index}", question, target, "text" if kind == "scorer" else kind, metadata
        )


def _item(dataset: str, options: dict[str, Any], key: str) -> tuple[Any, dict[str, Any]]:
    """A dataset of one item, and the item."""
    # 31 bits: what every random generator takes as a seed. Two equal ones give equal questions, which are skipped.
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) >> 1
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # some print while they load or draw
            # A new dataset for each item: some draw in their constructor, gsm_symbolic its template.
            maker = _gym().create_dataset(dataset, seed=seed, size=1, **options)
            return maker, maker[0]
    except FAULTS as error:
        # Many of its checks are assertions without a message: then the line says more.
        reason = str(error) or traceback.extract_tb(error.__traceback__)[-1].line
        raise RecipeError(
            f"{PREFIX}{dataset}: reasoning-gym refuses the options {json.dumps(options)} ({reason})"
        ) from error


@functools.lru_cache(maxsize=64)  # the samples of a problem come together; some makers hold a book
def _drawn(dataset: str, options: str, key: str) -> tuple[Any, dict[str, Any]]:
    return _item(dataset, _options(dataset, json.loads(options)), key)


def _target(dataset: str, entry: dict[str, Any]) -> str:
    gold = entry["metadata"].get(EXAMPLES_OF[dataset]) if dataset in EXAMPLES_OF else entry["answer"]
    return (gold if isinstance(gold, str) else "" if gold is None else json.dumps(gold)).strip()


def _has_gold(dataset: str, maker: Any, entry: dict[str, Any]) -> bool:
    """Whether there is a gold answer, and the dataset's own scorer agrees."""
    target = _target(dataset, entry)
    return folded(target) != "" and _score(dataset, maker, entry, target)


def _numbers(text: str) -> list[str]:
    return sorted(re.findall("[0-9]+", text))


def _score(dataset: str, maker: Any, entry: dict[str, Any], answer: str) -> bool:
    if not answer or len(answer) > max(LONGEST_ANSWER, 2 * len(_target(dataset, entry))):
        return False
    if dataset in SHOWN and not SHOWN[dataset].fullmatch(answer):
        return False
    if dataset == "puzzle24" and _numbers(answer) != _numbers(_target(dataset, entry)):
        return False
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return bool(maker.score_answer(answer, entry) == 1.0)
    except FAULTS:
        return False


def _options(dataset: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` as the dataset takes them, without those that say its default, so that they name the same problems."""
    name = PREFIX + dataset
    datasets = _gym().factory.DATASETS
    if dataset not in datasets:
        close = difflib.get_close_matches(dataset.lower().replace("-", "_"), datasets, n=1)
        hint = f"did you mean {PREFIX + close[0]!r}?" if close else f"`fcot tasks {PREFIX}` lists them"
        raise RecipeError(f"unknown task {name!r}: {hint}")
    if dataset in REFUSED:
        raise RecipeError(f"{name} cannot be used: {REFUSED[dataset]}")
    known = {field.name: field for field in fields(datasets[dataset][1]) if field.name not in OURS}
    chosen = {}
    for option, value in options.items():
        if option in OURS:
            raise RecipeError(
                f"{name}: option {option!r} is not for recipes; task.train and its like set the sizes, and the seed of "
                "an item follows from the options, the split and its place"
            )
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
