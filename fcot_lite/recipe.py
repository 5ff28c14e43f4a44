"""The recipe: one YAML file that says everything a run depends on.

Read with PyYAML's safe loader (plus: 1e-5 is a float, a key may not appear twice), typed by pydantic. Every fault is
reported at once, by dotted key.
"""

import difflib
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic.types import NonNegativeFloat, NonNegativeInt

from fcot_lite.errors import RecipeError
from fcot_lite.files import sha256_json

MAX_RECIPE_BYTES = 1_000_000  # a recipe is some 60 lines; a file far beyond that is the wrong file
FINE_TUNED = "fine_tune_cot"  # the trained student's key among the methods of a result, where prompts are keys too


def _plain(value: Any) -> Any:
    """Raises ValueError for what JSON can't hold: YAML has dates, sets and bytes, infinities and half characters."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
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
# One folder name: letters, digits, dot, underscore and dash, so that a run can't climb out of runs/.
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$")]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Prompt(Block):
    """How a question is put: `template` holds {question}; `examples` solved ones come before it as earlier turns."""

    template: str = "{question}"
    system: str | None = None
    examples: NonNegativeInt = 0


class TaskBlock(Block):
    """Which problems, and how many of each split (null: all there are)."""

    name: str
    options: Options = {}
    train: PositiveInt | None = None
    validation: PositiveInt | None = None
    test: PositiveInt | None = None


class Sampling(Block):
    """vLLM's SamplingParams fields. `seed` is the root from which every sample's own seed is derived."""

    max_tokens: PositiveInt
    temperature: NonNegativeFloat = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: NonNegativeInt = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: PositiveFloat = 1.0
    seed: NonNegativeInt = 0
    stop: list[str] = []


class EngineBlock(BaseModel):
    """vLLM's engine arguments; what is not named here is passed on as it stands."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, Option]
    max_model_len: PositiveInt
    max_num_seqs: PositiveInt = 64

    @model_validator(mode="after")
    def _ours(self) -> "EngineBlock":
        """What the run itself decides."""
        if taken := sorted({"model", "tokenizer", "revision", "seed", "enable_lora"} & set(self.model_extra or {})):
            raise ValueError(
                f"{', '.join(taken)} can't be chosen here; see teacher.model, student.model, sampling.seed"
            )
        return self


class TeacherBlock(Block):
    """`n` is the paper's D: the number of rationales sampled for each question."""

    model: str
    prompt: str
    n: PositiveInt
    sampling: Sampling
    engine: EngineBlock


class CurateBlock(Block):
    """`max_length` counts the tokens of prompt and completion together; `max_per_problem` null keeps all."""

    max_length: PositiveInt
    max_per_problem: PositiveInt | None = None


class StudentBlock(Block):
    """`lora` takes PEFT's LoraConfig fields, `sft` TRL's SFTConfig fields."""

    model: str
    prompt: str
    method: Literal["lora", "qlora", "full"] = "lora"
    lora: Options = {}
    sft: Options = {}


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
    teacher: TeacherBlock
    curate: CurateBlock
    student: StudentBlock
    evaluate: EvaluateBlock
    cost: Cost = Cost()

    def hash(self) -> str:
        """Changes with everything but the run's name and the price."""
        return sha256_json(self.model_dump(exclude={"name", "cost"}))


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in keys:
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"line {line}: the key {key!r} appears twice or is no plain word", key_node.start_mark
                )
            keys.add(key)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # aliases let ten lines unfold into gigabytes
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not used in recipes", event.start_mark)
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        # YAML 1.1 takes 012 for 10 (octal) and 1:30 for 90 (base 60).
        if not re.fullmatch(r"[-+]?(0|[1-9][0-9_]*)", node.value):
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value} is no decimal number; put it in quotes if it is text", node.start_mark
            )
        return super().construct_yaml_int(node)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Other styles than double quotes fold Unicode's line separators into spaces.
        return self.represent_scalar(
            "tag:yaml.org,2002:str", data, '"' if re.search("[\x85\u2028\u2029]", data) else None
        )


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Dumper.add_representer(str, _Dumper.represent_str)
# YAML 1.1 as PyYAML reads it takes 1e-5 for a string. The dumper has to know, or it writes the string without quotes.
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in `path`, with `key.path=value` overrides (values are YAML). Raises RecipeError with every fault."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_RECIPE_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}; name a recipe file such as recipes/quickstart.yaml") from None
    if len(text) > MAX_RECIPE_BYTES:
        raise RecipeError(f"{path}: larger than {MAX_RECIPE_BYTES:,} bytes; that is no recipe")
    value = _parse(text, str(path))
    if not isinstance(value, dict):
        raise RecipeError(f"{path}: expected `key: value` lines at the top")
    for override in overrides:
        _override(value, override)
    return build(value, str(path))


def build(value: Mapping[str, Any], where: str) -> Recipe:
    """The recipe that a plain mapping describes. Raises RecipeError listing every fault by dotted key."""
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as error:
        raise RecipeError(f"{where}:\n" + "\n".join(_fault(fault) for fault in error.errors())) from None
    faults = []
    named = [
        ("teacher.prompt", recipe.teacher.prompt),
        ("student.prompt", recipe.student.prompt),
        *((f"evaluate.before.{i}", name) for i, name in enumerate(recipe.evaluate.before)),
    ]
    for key, name in named:
        if name not in recipe.prompts:
            faults.append(f"  {key}: no prompt is called {name!r}{did_you_mean(name, recipe.prompts)}")
    for name, prompt in recipe.prompts.items():
        if prompt.template.count("{question}") != 1:
            faults.append(f"  prompts.{name}.template: must hold {{question}} exactly once")
    if FINE_TUNED in recipe.prompts:
        faults.append(f"  prompts.{FINE_TUNED}: the results call the trained student so; take another name")
    if recipe.student.prompt not in recipe.evaluate.before:
        faults.append("  evaluate.before: must hold student.prompt, so that before and after can be compared")
    for key, sampling, engine in (
        ("teacher", recipe.teacher.sampling, recipe.teacher.engine),
        ("evaluate", recipe.evaluate.sampling, recipe.evaluate.engine),
    ):
        if sampling.max_tokens >= engine.max_model_len:
            faults.append(
                f"  {key}.sampling.max_tokens: {sampling.max_tokens} leaves no room for a prompt in "
                f"{key}.engine.max_model_len = {engine.max_model_len}"
            )
    if faults:
        raise RecipeError(f"{where}:\n" + "\n".join(faults))
    return recipe


def dump(recipe: Recipe) -> str:
    """The complete recipe as YAML, defaults included."""
    return yaml.dump(recipe.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def did_you_mean(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}"


def _parse(text: bytes | str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise RecipeError(f"{where}: not valid YAML: {error}") from None


def _override(value: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"{override!r}: overrides are written key.path=value")
    *path, last = key.split(".")
    for part in path:
        value = value.setdefault(part, {})
        if not isinstance(value, dict):
            raise RecipeError(f"{key}: {part!r} is a value, not a block")
    value[last] = _parse(text, override)


def _fault(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        block: Any = Recipe
        for part in fault["loc"][:-1]:
            # A field of a block, or an entry of a mapping such as `prompts`: dict[name, block].
            block = block.model_fields[part].annotation if hasattr(block, "model_fields") else get_args(block)[1]
        known = list(block.model_fields)
        return f"  {key}: unknown key" + did_you_mean(str(fault["loc"][-1]), known)
    message = "Should be a block of keys" if fault["type"] in ("model_type", "dict_type") else fault["msg"]
    given = "" if fault["type"] == "missing" else f" (it is {repr(fault['input'])[:60]})"
    return f"  {key}: {message}{given}"
