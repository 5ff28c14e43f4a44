"""Recipes: what is wrong is refused by its dotted key, all at once; what is right comes back the same from disk."""

import copy
import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st

from fcot_lite.errors import RecipeError
from fcot_lite.prompts import METHODS
from fcot_lite.recipe import Recipe, build, dump, load

WHOLE: dict[str, Any] = {
    "name": "quick",
    "task": {"name": "chain_arithmetic", "options": {"terms": [2, 3]}},
    "prompts": {"plain": {}, "steps": {"template": "{question} Step by step.", "system": "Be right.", "examples": 2}},
    "teacher": {
        "model": "starter:x",
        "prompt": "steps",
        "n": 4,
        "sampling": {"max_tokens": 96, "temperature": 0.7},
        "engine": {"max_model_len": 512, "kv_cache_dtype": "fp8"},
    },
    "curate": {"max_length": 256},
    "student": {"model": "starter:y", "prompt": "plain", "lora": {"r": 8}, "sft": {"learning_rate": 5e-4}},
    "evaluate": {"before": ["plain", "steps"], "sampling": {"max_tokens": 96}, "engine": {"max_model_len": 512}},
}
NOTHING = object()
OWN_DATA = {"path": "x.csv", "question": "q", "target": "t", "answer": "number"}


def changed(**changes: Any) -> dict[str, Any]:
    """WHOLE with `teacher__n=3` for teacher.n; NOTHING takes a key away."""
    recipe = copy.deepcopy(WHOLE)
    for key, value in changes.items():
        *path, last = key.split("__")
        block = recipe
        for part in path:
            block = block[part]
        if value is NOTHING:
            del block[last]
        else:
            block[last] = value
    return recipe


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(WHOLE))
    return path


def with_line(path: Path, line: str) -> Path:
    path.write_text(path.read_text() + line + "\n")
    return path


RECIPES = [*sorted(REPOSITORY.glob("recipes/*.yaml")), REPOSITORY / "tests" / "e2e.yaml"]


def test_there_are_recipes() -> None:
    assert len(RECIPES) > 2


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_recipes_of_the_repository(path: Path) -> None:
    recipe = load(path)
    assert load(path, device="cpu") == load(path, device="cuda") == recipe
    assert recipe.name == path.stem
    assert len(path.read_text().splitlines()) <= 60


@pytest.mark.parametrize(
    ("changes", "key", "says"),
    [
        ({"teachr": 1}, "teachr", "unknown key; did you mean 'teacher'?"),
        ({"teacher__nn": 1}, "teacher.nn", "unknown key; did you mean 'n'?"),
        ({"teacher__sampling__temprature": 1.0}, "teacher.sampling.temprature", "did you mean 'temperature'?"),
        ({"prompts__plain__templte": "x"}, "prompts.plain.templte", "did you mean 'template'?"),
        ({"curate__zzz": 1}, "curate.zzz", "there are: max_length, filter, check, "),
        ({"curate__filter": "off"}, "curate.filter", "'none' or 'answer'"),
        ({"curate__check": True}, "curate.check", "'off', 'arithmetic' or 'golden'"),
        ({"curate__near_duplicates": 0.5}, "curate.near_duplicates", "greater than or equal to 0.7"),
        ({"curate__near_duplicates": 1.1}, "curate.near_duplicates", "less than or equal to 1"),
        ({"curate__max_per_problem": 0}, "curate.max_per_problem", "greater than 0"),
        ({"curate__select": "text"}, "curate.select", "say how many with max_per_problem or balance"),
        (
            {"curate__size_match": "golden", "curate__check": "arithmetic"},
            "curate.size_match",
            "leave out curate.check: arithmetic",
        ),
        *(
            ({f"curate__{key}": "golden", "task": task}, f"curate.{key}", ", chain_arithmetic")
            for key in ("check", "size_match")
            for task in ({"name": "gsm8k"}, {"name": "rg:chain_sum"}, OWN_DATA)
        ),
        *(
            (
                {f"curate__{key}": value, "prompts__plain": {"completion": "{final_sentence}"}},
                f"curate.{key}",
                "nothing",
            )
            for key, value in [
                ("filter", "none"),
                ("check", "golden"),
                ("near_duplicates", 0.8),
                ("balance", True),
                ("size_match", "golden"),
            ]
        ),
        ({"teacher__n": NOTHING}, "teacher.n", "Field required"),
        ({"task": NOTHING}, "task", "Field required"),
        ({"task": None}, "task", "Should be a block of keys (it is None)"),
        ({"task": [1]}, "task", "it is [1]"),
        ({"teacher__n": "4"}, "teacher.n", "it is '4'"),
        ({"teacher__n": 4.0}, "teacher.n", "it is 4.0"),
        ({"teacher__n": True}, "teacher.n", "it is True"),
        ({"teacher__n": 0}, "teacher.n", "greater than 0"),
        ({"teacher__until": {"accept": 4, "max": 16}}, "teacher.until", "stands beside teacher.n; set one of the two"),
        ({"teacher__n": None}, "teacher.n", "Field required; or `until`"),
        (
            {"teacher__n": NOTHING, "teacher__until": {"accept": 4, "max": 3}},
            "teacher.until.max",
            "3 samples cannot hold",
        ),
        ({"teacher__n": NOTHING, "teacher__until": {"accept": 4}}, "teacher.until.max", "Field required"),
        ({"teacher__n": NOTHING, "teacher__until": 4}, "teacher.until", "Should be a block of keys"),
        (
            {"teacher__n": NOTHING, "teacher__until": {"accept": 4, "max": 9, "acept": 4}},
            "teacher.until.acept",
            "unknown key; did you mean 'accept'?",
        ),
        *(
            (
                {"teacher__n": NOTHING, "teacher__until": {"accept": 4, "max": 9, name: value}},
                f"teacher.until.{name}",
                says,
            )
            for name, value, says in [
                ("accept", 0, "greater than 0"),
                ("max", 2.5, "valid integer"),
                ("give_up", 0, "greater than 0"),
                ("give_up", 1, "less than 1"),
                ("give_up", "5 %", "valid number"),
                ("allocation", "prop2diff", "'uniform' or 'proportional'"),
            ]
        ),
        ({"teacher__n": -1}, "teacher.n", "greater than 0"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"seed": None}, "seed", "it is None"),
        ({"teacher__sampling__temperature": -0.1}, "teacher.sampling.temperature", "greater than or equal to 0"),
        ({"teacher__sampling__temperature": float("nan")}, "teacher.sampling.temperature", "finite"),
        ({"teacher__sampling__temperature": float("inf")}, "teacher.sampling.temperature", "finite"),
        ({"teacher__sampling__temperature": False}, "teacher.sampling.temperature", "it is False"),
        ({"teacher__sampling__top_p": 0.0}, "teacher.sampling.top_p", "greater than 0"),
        ({"teacher__sampling__top_p": 1.01}, "teacher.sampling.top_p", "less than or equal to 1"),
        ({"teacher__sampling__stop": "x"}, "teacher.sampling.stop", "it is 'x'"),
        ({"student__method": "dora"}, "student.method", "'lora', 'qlora' or 'full'"),
        ({"student__lora": [1]}, "student.lora", "it is [1]"),
        ({"student__sft__learning_rate": float("inf")}, "student.sft.learning_rate", "finite"),
        ({"student__sft__lr_scheduler_kwargs": [{"b": float("nan")}]}, "student.sft.lr_scheduler_kwargs", "finite"),
        ({"task__options__day": date(2026, 1, 2)}, "task.options.day", "not a date"),
        ({"task__options__raw": b"\xff"}, "task.options.raw", "not a bytes"),
        ({"task__options__all": {1, 2}}, "task.options.all", "not a set"),
        ({"task__options__half": "\ud800"}, "task.options.half", "surrogates"),
        ({"teacher__engine__watermark": float("inf")}, "teacher.engine.watermark", "finite"),
        ({"task__options__nested": {1: 2}}, "task.options.nested", "must have text as keys"),
        ({"teacher__engine__max_model_len": 0}, "teacher.engine.max_model_len", "greater than 0"),
        ({"teacher__sampling__max_tokens": 512}, "teacher.sampling.max_tokens", "leaves no room for a prompt"),
        ({"evaluate__engine__max_model_len": 96}, "evaluate.sampling.max_tokens", "evaluate.engine.max_model_len = 96"),
        ({"evaluate__before": []}, "evaluate.before", "at least 1"),
        ({"evaluate__before": ["plain", "stps"]}, "evaluate.before.1", "did you mean 'steps'?"),
        ({"evaluate__before": ["steps"]}, "evaluate.before", "must hold student.prompt"),
        ({"teacher__prompt": "zzz"}, "teacher.prompt", "no prompt is called 'zzz'; there are: plain, steps"),
        ({"prompts__plain__template": "no place"}, "prompts.plain.template", "{question} exactly once"),
        ({"prompts__plain__template": "{question}{question}"}, "prompts.plain.template", "{question} exactly once"),
        ({"prompts__trained": {}}, "prompts.trained", "take another name"),
        ({"cost": {"usd_per_hour": -1}}, "cost.usd_per_hour", "greater than or equal to 0"),
        ({"prompts__plain__system": False}, "prompts.plain.system", "put it in quotes (it is False)"),
        ({"prompts__plain__system": 5}, "prompts.plain.system", "put it in quotes (it is 5)"),
        ({"a\nb": 1}, r"'a\nb'", "unknown key"),
        ({"student__lora": {"zzzz": 1}}, "student.lora.zzzz", "unknown key; it is not in PEFT 0.21's LoraConfig"),
        ({"student__sft": {"learning_rat": 1}}, "student.sft.learning_rat", "did you mean 'learning_rate'?"),
        ({"evaluate__engine__max_num_seq": 1}, "evaluate.engine.max_num_seq", "did you mean 'max_num_seqs'?"),
        (
            {"teacher__engine__chat_template": "x"},
            "teacher.engine.chat_template",
            "not in vLLM 0.32's engine arguments",
        ),
        # Right name, wrong block.
        ({"learning_rate": 1e-4}, "learning_rate", "unknown key here; it belongs to student.sft"),
        ({"student__learning_rate": 1e-4}, "student.learning_rate", "it belongs to student.sft"),
        ({"student__sft__r": 8}, "student.sft.r", "it belongs to student.lora"),
        ({"temperature": 1.0}, "temperature", "it belongs to teacher.sampling or evaluate.sampling"),
        ({"evaluate__temperature": 1.0}, "evaluate.temperature", "it belongs to evaluate.sampling"),
        ({"teacher__sampling__n": 4}, "teacher.sampling.n", "it belongs to teacher"),
        ({"curate__name": "x"}, "curate.name", "it belongs to the top of the recipe or task"),
        ({"teacher__system": "x"}, "teacher.system", "it belongs to prompts.NAME"),
        # Other tools' names.
        ({"max_new_tokens": 1}, "max_new_tokens", "teacher.sampling.max_tokens and evaluate.sampling.max_tokens"),
        ({"teacher__max_new_tokens": 1}, "teacher.max_new_tokens", "here it is teacher.sampling.max_tokens"),
        (
            {"evaluate__sampling__max_new_tokens": 1},
            "evaluate.sampling.max_new_tokens",
            "is evaluate.sampling.max_tokens",
        ),
        ({"teacher__sampling__num_generations": 1}, "teacher.sampling.num_generations", "here it is teacher.n"),
        ({"student__lora__lora_rank": 8}, "student.lora.lora_rank", "here it is student.lora.r"),
        ({"student__sft__micro_batch_size": 8}, "student.sft.micro_batch_size", "sft.per_device_train_batch_size"),
        ({"sequence_len": 8}, "sequence_len", "curate.max_length and teacher.engine.max_model_len and evaluate.engine"),
        ({"base_model": "x"}, "base_model", "here it is student.model"),
        ({"teacher__base_model": "x"}, "teacher.base_model", "here it is teacher.model"),
        ({"student__load_in_4bit": True}, "student.load_in_4bit", "here it is student.method"),
    ],
    ids=str,
)
def test_a_fault_is_named_by_its_dotted_key(changes: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(RecipeError) as raised:
        build(changed(**changes), "my.yaml")
    first, fault = str(raised.value).split("\n", 1)
    assert first == "my.yaml:"
    assert fault.startswith(f"  {key}: ")
    assert says in fault
    assert "\n" not in fault, "one fault, one line"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../up", "a/b", "/abs", "-rf", ".hidden", "a b", "a\x00", "a\n", "ä", "x" * 65, "x" * 300, 3, None],
)
def test_names_that_could_leave_the_folder_of_runs(name: Any) -> None:
    with pytest.raises(RecipeError, match=r"\n  name: "):
        build(changed(name=name), "my.yaml")
    with pytest.raises(RecipeError, match=r"\n  prompts\."):
        build(changed(prompts={**WHOLE["prompts"], name: {}}), "my.yaml")


@pytest.mark.parametrize(
    ("changes", "device", "key"),
    [
        ({"teacher__engine__max_num_batched_tokens": 32}, None, "teacher.engine.max_num_batched_tokens"),
        ({"evaluate__engine__max_num_batched_tokens": 256}, "cpu", "evaluate.engine.max_num_batched_tokens"),
        ({"evaluate__engine__max_num_batched_tokens": 256}, "cuda", None),
        ({"student__sft__max_length": 255}, None, "student.sft.max_length"),
        ({"student__sft__max_length": 256}, None, None),
    ],
)
def test_values_that_do_not_go_together(changes: dict[str, Any], device: Any, key: str | None) -> None:
    if key is None:
        build(changed(**changes), "my.yaml", device)
    else:
        with pytest.raises(RecipeError, match=rf"\n  {re.escape(key)}: "):
            build(changed(**changes), "my.yaml", device)


@pytest.mark.parametrize("name", ["samples.sqlite", "samples.sqlite-wal", "samples.sqlite.lock"])
def test_a_run_is_not_called_as_the_store_is(name: str) -> None:
    with pytest.raises(RecipeError, match=r"\n  name: samples\.sqlite and its companions"):
        build(changed(name=name), "my.yaml")


def test_a_method_of_the_paper_needs_no_block() -> None:
    recipe = build(changed(teacher__prompt="zero_shot_cot", evaluate__before=["plain", "few_shot_cot"]), "my.yaml")
    assert recipe.prompts["zero_shot_cot"] == METHODS["zero_shot_cot"]
    assert set(recipe.prompts) == {"plain", "steps", "zero_shot_cot", "few_shot_cot"}
    own = changed(
        prompts={**WHOLE["prompts"], "zero_shot_cot": {"template": "{question}!"}}, teacher__prompt="zero_shot_cot"
    )
    assert build(own, "my.yaml").prompts["zero_shot_cot"].template == "{question}!"
    with pytest.raises(RecipeError, match="did you mean 'zero_shot_cot'"):
        build(changed(teacher__prompt="zero_shot_cott"), "my.yaml")


@pytest.mark.parametrize(
    ("completion", "stop", "says"),
    [
        ("{rationale}\n{answer}", [], "'So it is.\\n12' for the number '12', and that is graded \"no answer\""),
        ("{rationale} ==> {answer}", [], 'graded "no answer"; end it with {final_sentence}'),
        ("Result: {answer}", [], "'Result: 12'"),
        ("{rationale} {final_sentence} ... {rationale_}", [], "{rationale_} would stay as it is"),
        ("{rationale}\n\\boxed{answer}", [], "'So it is.\\n\\\\boxed12'"),
        ("{rationale}\n{final_sentence}", ["answer"], "'So it is.\\nThe ' for the number"),
        ("{answer}", [], None),
        ("{answer}.", [], None),
        ("{rationale}\n\\boxed{{answer}}", [], None),
        ("{rationale}\n#### {answer}", [], None),
        ("{rationale} --> {answer} END", ["END"], None),
        ("{rationale}\nAnswer: {answer}", [], None),
        ("{final_sentence} {rationale}", [], None),
    ],
)
def test_a_label_must_be_graded_right(completion: str, stop: list[str], says: str | None) -> None:
    """Else the trained student's every answer counts as none, which shows only after the training."""
    changes = {"prompts__plain__completion": completion, "prompts__plain__stop": stop}
    if says is None:
        assert build(changed(**changes), "my.yaml")
        return
    with pytest.raises(RecipeError) as raised:
        build(changed(**changes), "my.yaml")
    assert "prompts.plain.completion: " in str(raised.value)
    assert says in str(raised.value)
    # What nobody is trained with may say what it likes.
    build(changed(prompts__steps__completion=completion.replace("{rationale_}", ""), prompts__steps__stop=stop), "here")


def test_a_label_is_judged_by_the_kind_of_answers() -> None:
    """ "#### no" is no statement of yes or no, "#### 12" is one of a number."""
    own = {"path": "a.jsonl", "question": "q", "target": "a", "answer": "number"}
    text = "{rationale}\nThe answer is: {answer} kg"
    build(changed(task=own, prompts__plain__completion=text), "here")
    with pytest.raises(RecipeError, match="for the letters 'nyda'"):
        build(changed(task={**own, "answer": "letters"}, prompts__plain__completion=text), "here")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_a_students(method: str) -> None:
    build(changed(student__prompt=method, evaluate__before=[method]), "here")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompts__plain__template": "{question} {answer}"}, "plain.template: {answer} would stay as it is; what is"),
        ({"prompts__plain__template": "{question} {Question}"}, "filled in here is {question} and {answer_form}"),
        ({"prompts__plain__system": "On {question}."}, "plain.system: {question} would stay as it is"),
        ({"prompts__plain__stop": [""]}, "prompts.plain.stop.0: String should have at least 1 character"),
        ({"teacher__sampling__stop": ["Q:", ""]}, "teacher.sampling.stop.1: String should have at least 1 character"),
        ({"prompts__plain__template": r"{question} As \frac{a}{b} in \boxed{x}, {} {a b}."}, None),
        ({"prompts__plain__system": "End with {answer_form}."}, None),
    ],
)
def test_braces_and_stops(change: dict[str, Any], says: str | None) -> None:
    if says is None:
        build(changed(**change), "here")
        return
    with pytest.raises(RecipeError) as raised:
        build(changed(**change), "here")
    assert says in str(raised.value)


@pytest.mark.parametrize("completion", ["", "{answer}{answer}", "{rationale}", "{rationale}{rationale}{answer}"])
def test_a_completion_states_one_answer(completion: str) -> None:
    with pytest.raises(RecipeError, match=r"prompts\.plain\.completion: must hold"):
        build(changed(prompts__plain__completion=completion), "my.yaml")


def test_all_faults_at_once() -> None:
    with pytest.raises(RecipeError) as raised:
        build(changed(teachr=1, teacher__n=0, seed="x", curate__max_length=NOTHING), "my.yaml")
    lines = str(raised.value).splitlines()[1:]
    assert {line.split(":")[0].strip() for line in lines} == {"teachr", "teacher.n", "seed", "curate.max_length"}
    with pytest.raises(RecipeError) as raised:
        build(changed(teacher__prompt="z", student__prompt="z", prompts__plain__template=""), "my.yaml")
    assert len(str(raised.value).splitlines()) == 5  # and student.prompt is not in evaluate.before


FAULTY = """\
name: no
task: {name: x, name: y}
prompts:
  plain: {template: none}
teacher:
  model: m
  prompt: plan
  n: 012
  sampling:
    max_tokens: 64
    temperature: 1:30.5
  engine:
    max_model_len: 64
    gpu_memory_utilization: 2
curate: {}
student:
  model: m
  prompt: plain

  lora: {use_dora: true, r: 0}
  sft:
    lr: 1
    no: 1
evaluate:
  before: [other]
  sampling: {max_tokens: 8}
  engine: {max_model_len: 32}
"""


def test_every_kind_of_fault_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(FAULTY)
    with pytest.raises(RecipeError) as raised:
        load(path, ["teacher.sampling.top_p=2", "evaluate.sampling={}", "cost.usd=1"])
    first, *faults = str(raised.value).splitlines()
    assert first == f"{path}:"
    assert [fault.split(": ")[0].strip() for fault in faults] == [
        "name (line 1)",
        "task.name (line 2)",
        "prompts.plain.template (line 4)",
        "teacher.prompt (line 7)",
        "teacher.n (line 8)",
        "teacher.sampling.max_tokens (line 10)",
        "teacher.sampling.temperature (line 11)",
        "teacher.engine.gpu_memory_utilization (line 14)",
        "curate.max_length (line 15)",
        "student.lora.use_dora (line 20)",
        "student.lora.r (line 20)",
        "student.sft.lr (line 22)",
        "student.sft.no (line 23)",
        "evaluate.before.0 (line 25)",
        "evaluate.before (line 25)",
        "teacher.sampling.top_p (from the command line)",
        "evaluate.sampling.max_tokens (from the command line)",
        "cost.usd (from the command line)",
    ]


def test_what_a_cpu_cannot_do_is_a_fault_on_a_cpu(path: Path) -> None:
    overrides = ["teacher.engine.quantization=fp8", "evaluate.engine.enable_sleep_mode=true"]
    assert load(path, overrides) == load(path, overrides, device="cuda")
    with pytest.raises(RecipeError) as raised:
        load(path, overrides, device="cpu")
    lines = str(raised.value).splitlines()[1:]
    assert [line.split(" (")[0].strip() for line in lines] == [override.split("=")[0] for override in overrides]


def test_an_override_takes_the_fault_of_what_it_replaces(path: Path) -> None:
    with_line(path, "seed: 012\nseed: no")
    with pytest.raises(RecipeError, match=r"seed \(line 41\): appears again in line 42"):
        load(path)
    assert load(path, ["seed=3"]).seed == 3


@pytest.mark.parametrize("exponent", ["1e-5", "1E-5", "1.0e-5", "10e-6", "1_0e-6"])
def test_an_exponent_makes_a_float(path: Path, exponent: str) -> None:
    assert load(path, [f"student.sft.learning_rate={exponent}"]).student.sft == {"learning_rate": 1e-5}
    assert load(path, [f"teacher.sampling.temperature={exponent}"]).teacher.sampling.temperature == 1e-5


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("cost: &a {usd_per_hour: 1}\nseed: *a", "line 42: aliases (*) are not used in recipes"),
        ("seed: !!python/object/apply:os.system ['touch hacked']", "line 41: tags (!) are not used in recipes"),
        ("seed: !!python/name:os.system", "tags (!) are not used"),
        ("seed: !own 3", "tags (!) are not used"),
        ("seed: !!int 3", "tags (!) are not used"),
        ("!!str seed: 3", "tags (!) are not used"),
        ("cost: !!map {}", "tags (!) are not used"),
        ("cost: {usd_per_hour: !!binary aGk=}", "tags (!) are not used"),
        ("cost: {<<: *a}", "aliases (*) are not used"),
        ("cost: [1", "line 42: expected"),
        ("\tseed: 1", "cannot start any token"),
        ("cost: " + "[" * 20_000, "not valid YAML"),
        ("cost: \x01", "not valid YAML"),
        ("---\nseed: 1", "expected a single document"),
        ('cost: "\\UFFFFFFFF"', "not valid YAML"),
        ('cost: {usd_per_hour: "\\ud800"}', "surrogates not allowed"),
        ('"\\ud800": 1', "surrogates not allowed"),
    ],
    ids=lambda text: str(text)[:30],
)
def test_yaml_that_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, line: str, says: str) -> None:
    with monkeypatch.context() as here:
        here.chdir(path.parent)
        with pytest.raises(RecipeError, match=r"recipe\.yaml: not valid YAML") as raised:
            load(with_line(path, line))
    assert says in str(raised.value)
    assert [file.name for file in path.parent.iterdir()] == ["recipe.yaml"]


def test_a_bomb_of_aliases_is_refused_at_once(path: Path) -> None:
    lines = ["a0: &a0 [lol]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30))]
    with pytest.raises(RecipeError, match=r"aliases \(\*\) are not used"):
        load(with_line(path, "\n".join(lines)))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("seed: 1\nseed: 2", "seed (line 41): appears again in line 42; keep one"),
        ("seed: 012\n'seed': no", "seed (line 41): appears again in line 42"),
        ("cost: {usd_per_hour: 1, usd_per_hour: 2}", "cost.usd_per_hour (line 41): appears again in line 41"),
        ("seed: no", "seed (line 41): Input should be a valid integer (it is False)"),
        ("seed: 012", "seed (line 41): 012 is no plain decimal number; put it in quotes"),
        ("seed: -012", "seed (line 41): -012 is no plain decimal"),
        ("seed: 0x1f", "seed (line 41): 0x1f is no plain decimal"),
        ("seed: 0b11", "seed (line 41): 0b11 is no plain decimal"),
        ("seed: 1:30", "seed (line 41): 1:30 is no plain decimal"),
        ("seed: 1:30.5", "seed (line 41): 1:30.5 is no plain decimal"),
        ("seed: " + "9" * 5000, "seed (line 41): 9999"),
        ("seed: 12e400", "seed (line 41): Input should be a valid integer (it is inf)"),
        ("seed: .nan", "seed (line 41): Input should be a valid integer (it is nan)"),
        ("seed: -.INF", "seed (line 41): Input should be a valid integer (it is -inf)"),
        ("seed: 2026-01-02", "seed (line 41): YAML takes '2026-01-02' for a timestamp; put it in quotes"),
        ("seed: =", "seed (line 41): YAML takes '=' for a value; put it in quotes"),
        ("cost: {usd_per_hour: 2026-13-45}", "cost.usd_per_hour (line 41): YAML takes"),
        ("cost: {usd_per_hour: .inf}", "cost.usd_per_hour (line 41): Input should be a finite number"),
        ("cost: {<<: {usd_per_hour: 1}}", "cost.<< (line 41): a key must be text; put it in quotes"),
        ("1: 2", "1 (line 41): a key must be text; put it in quotes"),
        ("no: 2", "no (line 41): a key must be text; put it in quotes"),
        ("2026-13-45: 2", "2026-13-45 (line 41): a key must be text; put it in quotes"),
        ("? [1, 2]\n: 3", "? (line 41): a key must be text"),
        ("cost:\n- 1", "cost (line 41): Should be a block of keys (it is [1])"),
        ("task: {zzz: 1}", "task (line 25): appears again in line 41"),
    ],
    ids=lambda text: str(text)[:30],
)
def test_values_that_yaml_turns_into_something_else(path: Path, line: str, says: str) -> None:
    with pytest.raises(RecipeError) as raised:
        load(with_line(path, line))
    assert f"\n  {says}" in str(raised.value)


def test_a_word_that_yaml_takes_for_no(path: Path) -> None:
    with pytest.raises(RecipeError, match=r"name \(from the command line\): .*; put it in quotes \(it is False\)"):
        load(path, ["name=no"])


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    with open(large, "wb") as file:
        file.truncate(100_000_000)  # sparse
    empty = tmp_path / "empty.yaml"
    empty.touch()
    words = tmp_path / "words.yaml"
    words.write_text("just words")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"name: \xff\x80")
    for path, says in [
        (tmp_path / "missing.yaml", "No such file"),
        (tmp_path, "Is a directory"),
        (empty / "below", "Not a directory"),
        (large, "larger than 100,000 bytes"),
        (Path("/dev/zero"), "larger than 100,000 bytes"),
        (empty, "expected `key: value` lines"),
        (words, "expected `key: value` lines"),
        (binary, "not valid YAML"),
    ]:
        with pytest.raises(RecipeError, match=says) as raised:
            load(path)
        assert str(path) in str(raised.value)


def test_overrides(path: Path) -> None:
    recipe = load(path, ["teacher.n=8", "cost.usd_per_hour=0.5", "task.options={digits: [1, 1]}", "seed=3", "seed=4"])
    assert (recipe.teacher.n, recipe.cost.usd_per_hour, recipe.seed) == (8, 0.5, 4)
    assert recipe.task.options == {"digits": [1, 1]}
    assert load(path, ["prompts.plain.system=a=b"]).prompts["plain"].system == "a=b"
    assert load(path, ["task.train=5", "task.train="]).task.train is None


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("teacher.n", "overrides are written key.path=value"),
        ("=3", "overrides are written key.path=value"),
        ("teachr.n=3", "teachr (from the command line): unknown key; did you mean 'teacher'?"),
        ("teacher.m=3", "teacher.m (from the command line): unknown key"),
        ("teacher.n.x=3", "teacher.n.x (from the command line): 'n' is a value, not a block"),
        ("teacher.n=[1", "teacher.n=[1: not valid YAML"),
        ("teacher.n=*a", "teacher.n=*a: not valid YAML: line 1: aliases (*) are not used"),
        ("teacher.n=!!int 3", "tags (!) are not used"),
        ("teacher.n=012", "teacher.n (from the command line): 012 is no plain decimal number"),
        ("task.options={a: {b: 1, b: 2}}", "task.options.a.b (from the command line): appears again"),
        ('prompts.plain.system="\\ud800"', "surrogates not allowed"),
        ("na\udc80me=3", "overrides are written key.path=value"),
        ("evaluate.before=[no]", "evaluate.before.0 (from the command line): Input should be a valid string; put it"),
        ("student.lora.lora_rank=8", "student.lora.lora_rank (from the command line): unknown key; here it is"),
        ("student.lora.use_dora=true", "student.lora.use_dora (from the command line): vLLM serves no such adapter"),
        ("teacher.n=x", "teacher.n (from the command line): Input should be a valid integer"),
        ("teacher..n=3", "teacher. (from the command line): unknown key"),
    ],
)
def test_overrides_that_are_refused(path: Path, override: str, says: str) -> None:
    with pytest.raises(RecipeError) as raised:
        load(path, [override])
    assert says in str(raised.value)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda value: st.lists(value, max_size=3) | st.dictionaries(st.text(), value, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(
    st.text().filter(lambda text: "{" not in text),
    st.text().filter(lambda text: "{" not in text),
    st.lists(st.text(min_size=1), max_size=3),
    st.dictionaries(st.text(), PLAIN, max_size=3),
)
def test_the_written_recipe_is_the_recipe(
    tmp_path_factory: pytest.TempPathFactory, system: str, around: str, stop: list[str], options: dict[str, Any]
) -> None:
    template = around + "{question}"
    changes = {"prompts__plain": {"template": template, "system": system}, "task__options": options}
    recipe = build(changed(**changes, teacher__sampling__stop=stop), "here")
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_bytes(dump(recipe).encode())
    assert load(path) == recipe


@pytest.mark.parametrize(
    "text", ["1e5", "1e-5", "012", "0x1f", "no", "null", "1:30", "~", "=", "*a", "&a", "- x", "#", "2026-01-02"]
)
def test_text_that_looks_like_something_else_stays_text(tmp_path: Path, text: str) -> None:
    recipe = build(changed(prompts__plain__system=text, task__options={text: [text, text]}), "here")
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(recipe))
    assert load(path) == recipe


def test_the_same_value_twice_is_written_twice(tmp_path: Path) -> None:
    same = [2, 3]  # PyYAML would write an anchor and an alias
    recipe = build(changed(task__options={"terms": same, "digits": same}), "here")
    assert "*" not in dump(recipe)


def test_the_hash_follows_everything_but_name_and_price() -> None:
    recipe = build(WHOLE, "here")
    assert recipe.hash() == build(changed(name="other", cost={"usd_per_hour": 3}), "here").hash()
    for changes in ({"seed": 1}, {"teacher__n": 5}, {"student__sft": {}}, {"task__train": 7}):
        assert recipe.hash() != build(changed(**changes), "here").hash()
    assert json.dumps(recipe.model_dump(), allow_nan=False)
    assert isinstance(recipe, Recipe)


def keys_of(value: Any, *path: str | int) -> list[tuple[str | int, ...]]:
    """Every key of a mapping, blocks and their entries alike."""
    if not isinstance(value, dict):
        return [path] if path else []
    return [*([path] if path else []), *(key for name in value for key in keys_of(value[name], *path, name))]


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**400, max_value=10**400 + 3),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.none() | st.integers() | st.text(max_size=4), max_size=3),
    st.dictionaries(st.text(max_size=4) | st.integers() | st.none(), st.none() | st.text(max_size=4), max_size=2),
    st.sampled_from([date(2026, 1, 2), b"x", {1}, ("a",), float("nan"), "\ud800", 2**63, "{question}"]),
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(keys_of(WHOLE)), st.sampled_from(["drop", "rename", "replace"]), ODD, st.text(max_size=8))
def test_a_changed_recipe_is_a_recipe_or_its_changed_key_is_named(
    key: tuple[str, ...], change: str, odd: Any, name: str
) -> None:
    recipe = copy.deepcopy(WHOLE)
    block = recipe
    for part in key[:-1]:
        block = block[part]
    value = block.pop(key[-1])
    names = [".".join(key)]
    if change == "rename":
        block.setdefault(name, value)
        names.append(".".join([*key[:-1], name if name.isprintable() else repr(name)]))
    if change == "replace":
        block[key[-1]] = odd
    if key[0] == "prompts":
        names += [f"no prompt is called {part!r}" for part in key[1:]]  # where it is used
    if message := refusal(recipe):
        faults = message.split("\n")[1:]
        assert all(fault.startswith("  ") and ": " in fault for fault in faults), "one fault, one line"
        assert len({fault.split(": ")[0] for fault in faults}) == len(faults), "one fault for each key"
        assert any(name in fault for fault in faults for name in names)


def refusal(recipe: dict[str, Any]) -> str | None:
    try:
        build(recipe, "here")
    except RecipeError as error:
        return str(error)
    return None


PIECES = st.sampled_from(
    [*"0123456789-+.:{}[]&*!|>'\"%@`#?,=~_\t\n\\ ", "\n  ", ": ", "- ", "no", "<<: ", "\\ud800", "\\U00110000", "1:30"]
)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.lists(PIECES | st.characters(), max_size=5).map("".join))
def test_whatever_is_typed_into_the_file_or_an_override(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, typed: str
) -> None:
    text = yaml.safe_dump(WHOLE)
    at = data.draw(st.integers(0, len(text)))
    path = tmp_path_factory.mktemp("typed") / "recipe.yaml"
    path.write_text(text[:at] + typed + text[at:], errors="surrogatepass")
    overrides = data.draw(
        st.sampled_from([[], [f"task.options={typed}"], [f"teacher.{typed}"], [f"prompts.plain={typed}"]])
    )
    try:
        recipe = load(path, overrides)
    except RecipeError as error:
        message = str(error)
        assert message.encode(errors="strict")
    else:
        path.write_text(dump(recipe))
        assert load(path) == recipe


def test_what_reads_recipes_starts_without_the_engines() -> None:
    modules = "torch transformers trl peft vllm bitsandbytes datasets accelerate typer rich numpy"
    script = f"import sys, fcot_lite.recipe; print([name for name in {modules.split()} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_arms_of_the_paper_are_lines_of_a_recipe(path: Path) -> None:
    for line in ("filter: none", "check: off", "check: arithmetic", "check: golden", "size_match: golden"):
        recipe = load(path, [f"curate={{max_length: 9, {line}}}"])
        key, _, value = line.partition(": ")
        assert getattr(recipe.curate, key) == value
        with_line(path, "")  # what is dumped is read back the same
        path.with_name("again.yaml").write_text(dump(recipe))
        assert load(path.with_name("again.yaml")) == recipe
    load(path, ["prompts.plain.completion='{final_sentence}'", "curate.check=off", "curate.max_per_problem=1"])


def test_curation_s_identity_is_what_it_was_before_it_had_more_keys() -> None:
    block = build(changed(), "here").curate
    assert block.identity() == {"max_length": 256, "max_per_problem": None}
    more = build(changed(curate__check="golden", curate__balance=True), "here").curate
    assert more.identity() == {"max_length": 256, "max_per_problem": None, "check": "golden", "balance": True}
