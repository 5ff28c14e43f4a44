"""Recipes: what is wrong is refused by its dotted key, all at once; what is right comes back the same from disk."""

import copy
import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st

from fcot_lite.errors import RecipeError
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


RECIPES = sorted(REPOSITORY.glob("recipes/*.yaml"))


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_recipes_of_the_repository(path: Path) -> None:
    recipe = load(path)
    assert recipe.name == path.stem
    assert len(path.read_text().splitlines()) <= 60


@pytest.mark.parametrize(
    ("changes", "key", "says"),
    [
        ({"teachr": 1}, "teachr", "unknown key; did you mean 'teacher'?"),
        ({"teacher__nn": 1}, "teacher.nn", "unknown key; did you mean 'n'?"),
        ({"teacher__sampling__temprature": 1.0}, "teacher.sampling.temprature", "did you mean 'temperature'?"),
        ({"prompts__plain__templte": "x"}, "prompts.plain.templte", "did you mean 'template'?"),
        ({"curate__zzz": 1}, "curate.zzz", "there are: max_length, max_per_problem"),
        ({"teacher__n": NOTHING}, "teacher.n", "Field required"),
        ({"task": NOTHING}, "task", "Field required"),
        ({"task": None}, "task", "Should be a block of keys (it is None)"),
        ({"task": [1]}, "task", "it is [1]"),
        ({"teacher__n": "4"}, "teacher.n", "it is '4'"),
        ({"teacher__n": 4.0}, "teacher.n", "it is 4.0"),
        ({"teacher__n": True}, "teacher.n", "it is True"),
        ({"teacher__n": 0}, "teacher.n", "greater than 0"),
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
        ({"student__sft__a": [{"b": float("nan")}]}, "student.sft.a", "finite"),
        ({"task__options__day": date(2026, 1, 2)}, "task.options.day", "not a date"),
        ({"task__options__raw": b"\xff"}, "task.options.raw", "not a bytes"),
        ({"task__options__all": {1, 2}}, "task.options.all", "not a set"),
        ({"task__options__half": "\ud800"}, "task.options.half", "surrogates"),
        ({"teacher__engine__swap": float("inf")}, "teacher.engine.swap", "finite"),
        ({"teacher__engine__max_model_len": 0}, "teacher.engine.max_model_len", "greater than 0"),
        ({"teacher__sampling__max_tokens": 512}, "teacher.sampling.max_tokens", "leaves no room for a prompt"),
        ({"evaluate__engine__max_model_len": 96}, "evaluate.sampling.max_tokens", "evaluate.engine.max_model_len = 96"),
        ({"evaluate__before": []}, "evaluate.before", "at least 1"),
        ({"evaluate__before": ["plain", "stps"]}, "evaluate.before.1", "did you mean 'steps'?"),
        ({"evaluate__before": ["steps"]}, "evaluate.before", "must hold student.prompt"),
        ({"teacher__prompt": "zzz"}, "teacher.prompt", "no prompt is called 'zzz'; there are: plain, steps"),
        ({"prompts": {}}, "prompts", "at least 1"),
        ({"prompts__plain__template": "no place"}, "prompts.plain.template", "{question} exactly once"),
        ({"prompts__plain__template": "{question}{question}"}, "prompts.plain.template", "{question} exactly once"),
        ({"prompts__fine_tune_cot": {}}, "prompts.fine_tune_cot", "take another name"),
        ({"cost": {"usd_per_hour": -1}}, "cost.usd_per_hour", "greater than or equal to 0"),
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


def test_all_faults_at_once() -> None:
    with pytest.raises(RecipeError) as raised:
        build(changed(teachr=1, teacher__n=0, seed="x", curate__max_length=NOTHING), "my.yaml")
    lines = str(raised.value).splitlines()[1:]
    assert {line.split(":")[0].strip() for line in lines} == {"teachr", "teacher.n", "seed", "curate.max_length"}
    with pytest.raises(RecipeError) as raised:
        build(changed(teacher__prompt="z", student__prompt="z", prompts__plain__template=""), "my.yaml")
    assert len(str(raised.value).splitlines()) == 5  # and student.prompt is not in evaluate.before


@pytest.mark.parametrize("exponent", ["1e-5", "1E-5", "1.0e-5", "10e-6", "1_0e-6"])
def test_an_exponent_makes_a_float(path: Path, exponent: str) -> None:
    assert load(path, [f"student.sft.learning_rate={exponent}"]).student.sft == {"learning_rate": 1e-5}
    assert load(path, [f"teacher.sampling.temperature={exponent}"]).teacher.sampling.temperature == 1e-5


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("seed: 1\nseed: 2", "'seed' appears twice"),
        ("cost: {usd_per_hour: 1, usd_per_hour: 2}", "'usd_per_hour' appears twice"),
        ("cost: &a {usd_per_hour: 1}\nseed: *a", "aliases are not used in recipes"),
        ("seed: 012", "012 is no decimal number"),
        ("seed: 0x10", "0x10 is no decimal number"),
        ("seed: 1:30", "1:30 is no decimal number"),
        ("seed: !!python/object/apply:os.system ['touch hacked']", "could not determine a constructor"),
        ("seed: !!python/name:os.system", "could not determine a constructor"),
        ("cost: [1", "expected"),
        ("cost: {usd_per_hour: 2026-13-45}", "month must be in 1..12"),
        ("? [1, 2]\n: 3", "no plain word"),
        ("\tseed: 1", "cannot start any token"),
        ("cost: " + "[" * 20_000, "not valid YAML"),
        ("cost: \x01", "not valid YAML"),
    ],
    ids=lambda text: str(text)[:30],
)
def test_yaml_that_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, line: str, says: str) -> None:
    monkeypatch.chdir(path.parent)
    with pytest.raises(RecipeError, match=r"recipe\.yaml: not valid YAML") as raised:
        load(with_line(path, line))
    assert says in str(raised.value)
    assert [file.name for file in path.parent.iterdir()] == ["recipe.yaml"]
    monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("seed: no", "seed"),
        ("seed: 12e400", "seed"),
        ("seed: .nan", "seed"),
        ("seed: 2026-01-02", "seed"),
        ("cost: {usd_per_hour: .inf}", "cost.usd_per_hour"),
        ("cost: {usd_per_hour: !!binary aGk=}", "cost.usd_per_hour"),
        ("1: 2", "1"),
        ("seed: 1e400", "seed"),
    ],
)
def test_values_that_yaml_turns_into_something_else(path: Path, line: str, key: str) -> None:
    with pytest.raises(RecipeError, match=rf"recipe\.yaml:\n  {re.escape(key)}: "):
        load(with_line(path, line))


def test_a_word_that_yaml_takes_for_no(path: Path) -> None:
    with pytest.raises(RecipeError, match=r"name: .* \(it is False\)"):
        load(path, ["name=no"])


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * 2_000_000)
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
        (large, "larger than 1,000,000 bytes"),
        (Path("/dev/zero"), "larger than 1,000,000 bytes"),
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
        ("teachr.n=3", "teachr: unknown key; did you mean 'teacher'?"),
        ("teacher.m=3", "teacher.m: unknown key"),
        ("teacher.n.x=3", "teacher.n.x: 'n' is a value, not a block"),
        ("teacher.n=[1", "teacher.n=[1: not valid YAML"),
        ("teacher.n=*a", "aliases are not used"),
        ("teacher.n=x", "teacher.n: Input should be a valid integer"),
        ("teacher..n=3", "teacher.: unknown key"),
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
@given(st.text(), st.text(), st.lists(st.text(), max_size=3), st.dictionaries(st.text(), PLAIN, max_size=3))
def test_the_written_recipe_is_the_recipe(
    tmp_path_factory: pytest.TempPathFactory, system: str, around: str, stop: list[str], options: dict[str, Any]
) -> None:
    template = around.replace("{question}", "") + "{question}"
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
