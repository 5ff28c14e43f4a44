"""The recipe: one YAML file that says everything a run depends on.

Read by plain_yaml.py, typed by pydantic, the libraries' own options checked by options.py. Every fault is reported at
once, by dotted key and line.
"""

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    ValidationError,
)
from pydantic.types import NonNegativeFloat, NonNegativeInt

from fcot_lite import options, plain_yaml
from fcot_lite.budget import Fixed, Policy, Until
from fcot_lite.curate_block import CurateBlock, curate_contradictions
from fcot_lite.errors import RecipeError
from fcot_lite.files import sha256_json
from fcot_lite.plain_yaml import COMMAND_LINE, Faults, Key, parse
from fcot_lite.prompt_faults import label_faults, prompt_faults
from fcot_lite.prompts import METHODS, Prompt, Stop
from fcot_lite.task_block import (
    DATA_FILES,
    Block,
    Column,
    Option,
    Options,
    TaskBlock,
    at,
    is_none,
    task_contradictions,
)

MAX_RECIPE_BYTES = 100_000  # a recipe is some 60 lines, and PyYAML reads 100 kB in a second
STORE = "samples.sqlite"  # beside the runs, shared by them
TRAINED = "trained"  # the trained student's key among the methods of a result, where prompts are keys too


# One folder name: letters, digits, dot, underscore and dash, so that a run can't climb out of runs/.
RUN_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$"
RunName = Annotated[str, Field(pattern=RUN_NAME)]


class Sampling(Block):
    """vLLM's SamplingParams fields. `seed` is the root from which every sample's own seed is derived."""

    max_tokens: PositiveInt
    temperature: NonNegativeFloat = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: NonNegativeInt = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: PositiveFloat = 1.0
    seed: NonNegativeInt = 0
    stop: list[Stop] = Field(default_factory=list)


class EngineBlock(BaseModel):
    """vLLM's engine arguments; what is not named here is passed on as it stands, once `build` has checked it."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, Option]
    max_model_len: PositiveInt
    max_num_seqs: PositiveInt = 64


class TeacherBlock(Block):
    """`n` is the paper's D: the number of rationales sampled for each question. `until`, in its place, samples each
    question until enough of its rationales are accepted."""

    model: str
    prompt: str
    n: Annotated[PositiveInt | None, Field(exclude_if=is_none)] = None
    until: Annotated[Until | None, Field(exclude_if=is_none)] = None
    sampling: Sampling
    engine: EngineBlock

    @property
    def policy(self) -> Policy:
        if self.until is not None:
            return self.until
        if self.n is None:  # `build` refuses a recipe with neither
            raise RecipeError("teacher.n: Field required; or teacher.until")
        return Fixed(n=self.n)


def _rationale_file(value: str) -> str:
    if not value.lower().endswith((*DATA_FILES, ".json")):
        raise ValueError(
            "must end in .jsonl (one JSON object a line), .csv, .parquet or .json (the paper's completions)"
        )
    return value


class ImportBlock(Block):
    """Rationales that are there already, in place of a teacher that is asked: `file` brings them.

    `question`, `text`, `id` and `finish_reason` name its columns where they are not told by themselves. A row without a
    finish_reason counts as finished, by `unknown_finish`: where an explicit final answer ends the text, always (stop)
    or never (length). `prompt` is the one that they were drawn with, where the answer can't be read without it (a
    second call, an arrow). `n` takes the first n of each question; null takes all.
    """

    file: Annotated[str, AfterValidator(_rationale_file)]
    question: Column = None
    text: Column = None
    id: Column = None
    finish_reason: Column = None
    unknown_finish: Literal["answer", "stop", "length"] = "answer"
    prompt: Annotated[str | None, Field(exclude_if=is_none)] = None
    n: PositiveInt | None = None


# A teacher is one of the two, told by `file`. The tags stand in pydantic's places of faults.
TEACHERS: Mapping[str, type[BaseModel]] = {"[asked]": TeacherBlock, "[file]": ImportBlock}


def _kind_of_teacher(value: Any) -> str:
    given = value.get("file") if isinstance(value, Mapping) else getattr(value, "file", None)
    return "[asked]" if given is None else "[file]"


class StudentBlock(Block):
    """`lora` takes PEFT's LoraConfig fields, `sft` TRL's SFTConfig fields.

    `select` says which of the students at the ends of the epochs is evaluated: the last, or the one with the highest
    greedy accuracy on the validation part. With `auto_batch`, training that runs out of memory goes on with smaller
    micro-batches and more of them in a step.
    """

    model: str
    prompt: str
    method: Literal["lora", "qlora", "full"] = "lora"
    lora: Options = Field(default_factory=dict)
    sft: Options = Field(default_factory=dict)
    select: Literal["last", "validation_accuracy"] = "last"
    auto_batch: bool = False


class EvaluateBlock(Block):
    """`before` names the prompts among which the untrained student's best is chosen, on the validation part."""

    before: Annotated[list[str], Field(min_length=1)]
    sampling: Sampling
    engine: EngineBlock


class Cost(Block):
    usd_per_hour: NonNegativeFloat | None = None


class Recipe(Block):
    name: RunName
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  # numpy takes no larger one
    task: TaskBlock
    prompts: Annotated[dict[RunName, Prompt], Field(min_length=1)]
    teacher: Annotated[
        Annotated[TeacherBlock, Tag("[asked]")] | Annotated[ImportBlock, Tag("[file]")], Discriminator(_kind_of_teacher)
    ]
    curate: CurateBlock
    student: StudentBlock
    evaluate: EvaluateBlock
    cost: Cost = Cost()

    def hash(self) -> str:
        """Changes with everything but the run's name and the price."""
        return sha256_json(self.model_dump(exclude={"name", "cost"}))

    @property
    def models(self) -> list[str]:
        """The models that a run loads, each once."""
        of_teacher = [self.teacher.model] if isinstance(self.teacher, TeacherBlock) else []
        return list(dict.fromkeys([*of_teacher, self.student.model]))

    @property
    def teacher_prompt(self) -> Prompt:
        """The one by which the teacher's texts are read. Without one, imported texts are taken as they are, and answers
        of a second call as the paper's: "Therefore, the answer is" stood before them."""
        return METHODS["zero_shot_cot"] if self.teacher.prompt is None else self.prompts[self.teacher.prompt]


# What the blocks with the libraries' own options are called in options.py.
OPTION_BLOCKS = {
    ("teacher", "engine"): "engine",
    ("evaluate", "engine"): "engine",
    ("student", "lora"): "lora",
    ("student", "sft"): "sft",
}


def load(path: Path, overrides: Sequence[str] = (), device: options.Device | None = None) -> Recipe:
    """The recipe in `path`, with `key.path=value` overrides (values are YAML). Raises RecipeError with every fault.

    With `device`, what that device can't do is a fault too.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_RECIPE_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}; name a recipe file such as recipes/quickstart.yaml") from None
    if len(text) > MAX_RECIPE_BYTES:
        raise RecipeError(f"{path}: larger than {MAX_RECIPE_BYTES:,} bytes; that is no recipe")
    faults = Faults()
    value = parse(text, str(path), (), faults)
    if not isinstance(value, dict):
        raise RecipeError(f"{path}: expected `key: value` lines at the top")
    for override in overrides:
        _override(value, override, faults)
    return _build(value, str(path), device, faults)


def build(value: Mapping[str, Any], where: str, device: options.Device | None = None) -> Recipe:
    """The recipe that a plain mapping describes. Raises RecipeError listing every fault by dotted key."""
    return _build(value, where, device, Faults())


def dump(recipe: Recipe) -> str:
    """The complete recipe as YAML, defaults included."""
    return plain_yaml.dump(recipe.model_dump())


def _override(value: dict[str, Any], override: str, faults: Faults) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name or not name.isprintable():
        raise RecipeError(f"{override!r}: overrides are written key.path=value")
    key = tuple(name.split("."))
    for n, part in enumerate(key[:-1], 1):
        if part not in value:
            faults.lines[key[:n]] = COMMAND_LINE
        value = value.setdefault(part, {})
        if not isinstance(value, dict):
            faults.lines[key] = COMMAND_LINE
            return faults.add(key, f"{part!r} is a value, not a block")
    faults.forget(key)
    faults.lines[key] = COMMAND_LINE
    own = Faults()  # its lines count from the override's own start
    value[key[-1]] = parse(text, override, key, own)
    for below, message in own.messages.items():
        faults.add(below, message)


def _build(value: Mapping[str, Any], where: str, device: options.Device | None, faults: Faults) -> Recipe:
    recipe = None
    value = {**value, "prompts": _with_methods(value)}
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as error:
        for fault in error.errors():
            key = tuple(part for part in fault["loc"] if part != "[key]" and part not in TEACHERS)
            if fault["type"] == "missing":
                faults.missing.add(key)
            faults.add(key, _message(fault))
    for block, kind in OPTION_BLOCKS.items():
        given = {name: item for name, item in at(value, dict, *block, default={}).items() if isinstance(name, str)}
        for name in given:
            if name not in options.TABLES[kind]:
                faults.add((*block, name), _unknown((*block, name), options.TABLES[kind], options.CLASSES[kind]))
        for name, message in options.faults(kind, given, device):
            faults.add((*block, name), message)
    for key, message in _contradictions(value, device):
        faults.add(key, message)
    if recipe is None or faults.messages:
        raise RecipeError(faults.text(where))
    return recipe


def _with_methods(value: Mapping[str, Any]) -> Any:
    """The recipe's prompts and those of `METHODS` that it names, so that the resolved recipe is complete."""
    own = value.get("prompts", {})
    named = [at(value, str, "teacher", "prompt"), at(value, str, "student", "prompt")]
    named += [name for name in at(value, list, "evaluate", "before", default=[]) if isinstance(name, str)]
    if not isinstance(own, dict):
        return own
    return own | {name: METHODS[name].model_dump() for name in named if name in METHODS and name not in own}


def _contradictions(value: Mapping[str, Any], device: options.Device | None) -> Iterator[tuple[Key, str]]:
    """What can't be seen in one value alone. Values of a wrong type are passed over: pydantic names them."""
    if (at(value, str, "name") or "").startswith(STORE):
        yield ("name",), f"{STORE} and its companions in the folder of runs are the sample store; take another name"
    yield from task_contradictions(at(value, dict, "task"))
    yield from _policy_contradictions(at(value, dict, "teacher"))
    prompts = {name: prompt for name, prompt in at(value, dict, "prompts", default={}).items() if _is_name(name)}
    before = at(value, list, "evaluate", "before", default=[])
    student_prompt = at(value, str, "student", "prompt")
    named: list[tuple[Key, Any]] = [
        (("teacher", "prompt"), at(value, str, "teacher", "prompt")),
        (("student", "prompt"), student_prompt),
        *((("evaluate", "before", i), name) for i, name in enumerate(before)),
    ]
    for key, name in named:
        if isinstance(name, str) and name not in prompts:
            yield key, f"no prompt is called {name!r}{_did_you_mean(name, [*prompts, *METHODS])}"
    yield from prompt_faults(prompts)
    if _is_name(student_prompt) and student_prompt in prompts:
        stop = at(value, list, "evaluate", "sampling", "stop", default=[])
        yield from label_faults(student_prompt, prompts[student_prompt], at(value, str, "task", "answer"), stop)
    label = at(value, str, "prompts", student_prompt, "completion") if student_prompt in prompts else None
    yield from curate_contradictions(at(value, dict, "curate"), at(value, dict, "task"), label)
    if TRAINED in prompts:
        yield ("prompts", TRAINED), "the results call the trained student so; take another name"
    if before and student_prompt is not None and student_prompt not in before:
        yield ("evaluate", "before"), "must hold student.prompt, so that before and after can be compared"
    for block in ("teacher", "evaluate"):
        max_tokens = at(value, int, block, "sampling", "max_tokens")
        max_model_len = at(value, int, block, "engine", "max_model_len")
        if max_tokens is not None and max_model_len is not None and max_tokens >= max_model_len > 0:
            yield (
                (block, "sampling", "max_tokens"),
                f"{max_tokens} leaves no room for a prompt in {block}.engine.max_model_len = {max_model_len}",
            )
        batched = at(value, int, block, "engine", "max_num_batched_tokens")
        least = {"max_num_seqs": at(value, int, block, "engine", "max_num_seqs", default=64)}
        if device == "cpu":  # no chunked prefill there: a prompt has to fit into one batch
            least["max_model_len"] = max_model_len or 0
        for name, size in least.items():
            if batched is not None and batched < size:
                yield (
                    (block, "engine", "max_num_batched_tokens"),
                    f"must be at least {block}.engine.{name} = {size} (it is {batched})",
                )
    trained, curated = (at(value, int, *key) for key in (("student", "sft", "max_length"), ("curate", "max_length")))
    if trained is not None and curated is not None and trained < curated:
        yield (
            ("student", "sft", "max_length"),
            f"{trained} is less than curate.max_length = {curated}: rows would be kept that can't be trained on",
        )


def _policy_contradictions(teacher: Mapping[str, Any] | None) -> Iterator[tuple[Key, str]]:
    """Of how many samples a question gets."""
    if teacher is None or teacher.get("file") is not None:  # an import has no policy
        return
    given = [key for key in ("n", "until") if teacher.get(key) is not None]
    if not given:
        yield ("teacher", "n"), "Field required; or `until`, to sample until enough rationales are accepted"
    if len(given) == 2:
        yield ("teacher", "until"), "stands beside teacher.n; set one of the two to null"
    accept, most = (at(teacher, int, "until", key) for key in ("accept", "max"))
    if accept is not None and most is not None and accept > most > 0:
        yield ("teacher", "until", "max"), f"{most} samples cannot hold teacher.until.accept = {accept} accepted ones"


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch(RUN_NAME, name) is not None


def _message(fault: Any) -> str:
    """What pydantic found, in one line."""
    if fault["type"] == "extra_forbidden":
        block: Any = Recipe
        for part in fault["loc"][:-1]:
            if part in TEACHERS:
                block = TEACHERS[part]
                continue
            # A field of a block, or an entry of a mapping such as `prompts`: dict[name, block].
            block = block.model_fields[part].annotation if hasattr(block, "model_fields") else get_args(block)[1]
            if type(None) in get_args(block):  # block | None
                block = get_args(block)[0]
        return _unknown(tuple(part for part in fault["loc"] if part not in TEACHERS), block.model_fields)
    if fault["type"] == "missing":
        return "Field required"
    message = "Should be a block of keys" if fault["type"] in ("model_type", "dict_type") else fault["msg"]
    message = message.removeprefix("Value error, ")  # pydantic's
    quotes = fault["type"] == "string_type" and isinstance(fault["input"], bool | int | float)
    return f"{message}{'; put it in quotes' if quotes else ''} (it is {repr(fault['input'])[:60]})"


def _unknown(key: Key, known: Mapping[str, Any], library: str = "") -> str:
    """Where another tool's name, or a name that stands in the wrong block, belongs; else what may have been meant."""
    name, block = str(key[-1]), str(key[0]) if len(key) > 1 else ""
    if key[:-1] == ("teacher",) and "file" in known and name in TeacherBlock.model_fields:
        return "would do nothing: with teacher.file no model is asked; leave it out"
    if key[:-1] == ("teacher",) and "file" not in known and name in ImportBlock.model_fields:
        return "is for rationales that are there already: name their file in teacher.file"
    if ours := options.our_name(name, block):
        return f"unknown key; here it is {ours}"
    if owners := _owners().get(name):
        near = [owner for owner in owners if owner.split(".")[0] == block]
        return f"unknown key here; it belongs to {' or '.join(near or owners)}"
    return "unknown key" + _did_you_mean(name, known, library)


@cache
def _owners() -> dict[str, list[str]]:
    """For every key that a recipe can have, the blocks that take it."""
    owners: dict[str, list[str]] = defaultdict(list)

    def walk(block: type[BaseModel], path: str) -> None:
        for name, info in block.model_fields.items():
            here, below = path or "the top of the recipe", f"{path}.{name}".lstrip(".")
            if here not in owners[name]:  # both kinds of teacher have a prompt
                owners[name].append(here)
            blocks = TEACHERS.values() if below == "teacher" else [info.annotation]
            for inner in blocks:
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    walk(inner, below)

    walk(Recipe, "")
    for name in Prompt.model_fields:
        owners[name].append("prompts.NAME")
    for path, kind in OPTION_BLOCKS.items():
        for name in options.usable(kind):
            if ".".join(path) not in owners[name]:
                owners[name].append(".".join(path))
    return owners


def _did_you_mean(name: str, known: Iterable[str], library: str = "") -> str:
    if close := difflib.get_close_matches(name, list(known), n=1):
        return f"; did you mean {close[0]!r}?"
    return f"; it is not in {library}" if library else f"; there are: {', '.join(known)}"
