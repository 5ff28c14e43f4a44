"""Each fault that would spoil a training is caused once, and found before any weights are loaded."""

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import CHATML, REPOSITORY
from safetensors.numpy import save_file

from fcot_lite import doctor, models, stage, student, training_preflight
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.files import read_jsonl, write_jsonl
from fcot_lite.machine import Machine
from fcot_lite.preflight import Check
from fcot_lite.progress import Reporter
from fcot_lite.prompts import completion_ids, end_of_turn_id, load_tokenizer, prompt_ids
from fcot_lite.recipe import Recipe, load
from fcot_lite.rows import TokenRow, show, token_row
from fcot_lite.task_block import TaskBlock
from fcot_lite.tasks import problems

E2E = REPOSITORY / "tests" / "e2e.yaml"
QUESTION = [{"role": "user", "content": "What is 3 + 4?"}]
OPTIONS = {"terms": [2, 2], "digits": [1, 1], "operators": "+"}


def example(prompt: Any = QUESTION, said: str = "3 + 4 = 7.\nThe answer is 7.") -> dict[str, Any]:
    completion = said if isinstance(prompt, str) else [{"role": "assistant", "content": said}]
    return {"prompt": prompt, "completion": completion, "problem_id": "p/0", "sample_index": 0}


def changed(model_dir: Path, folder: Path, **config: Any) -> Path:
    """A copy of the model's directory with another config.json."""
    shutil.copytree(model_dir, folder, dirs_exist_ok=True)
    old = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(old | config))
    return folder


def failed(checks: Any) -> Check:
    (check,) = [check for check in checks if check.state == "fail"]
    assert check.fix
    assert doctor.exit_code([check]) == 3
    with pytest.raises(DataError, match=check.name) as raised:
        training_preflight.refuse([check])
    assert check.found in str(raised.value)
    assert check.fix in str(raised.value)
    return check


# ---- the model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "encoder-only"),
        ({"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}, "encoder-only"),
        ({"model_type": "modernbert", "architectures": ["ModernBertForMaskedLM"]}, "encoder-only"),
        ({"model_type": "bert"}, "encoder-only"),
        (
            {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            "encoder–decoder",
        ),
        (
            {"model_type": "bart", "architectures": ["BartForConditionalGeneration"], "is_encoder_decoder": True},
            "encoder–decoder",
        ),
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, "no causal language model"),
        ({"model_type": "vit", "architectures": ["ViTForImageClassification"]}, "no causal language model"),
        ({"model_type": "unheard_of"}, "no causal language model"),
        ({}, "no causal language model"),
        ({"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "mine.Mine"}}, "only by code that comes with it"),
    ],
    ids=str,
)
def test_models_that_cannot_be_a_student(config: dict[str, Any], says: str) -> None:
    check = failed([training_preflight.family(config)])
    assert says in check.found
    assert str(config.get("model_type")) in check.found


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]},
        {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
        {"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"]},
        {"model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"]},
        {"model_type": "llama", "architectures": None},
        {"model_type": "bert", "architectures": ["BertLMHeadModel"], "is_decoder": True},
        {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "auto_map": {"AutoConfig": "x.Phi3Config"}},
    ],
    ids=str,
)
def test_causal_models(config: dict[str, Any]) -> None:
    assert training_preflight.family(config).state == "ok"


def test_a_whole_directory(model_dir: Path) -> None:
    checks = {check.name: check for check in training_preflight.of_model(model_dir)}
    assert {check.state for check in checks.values()} == {"ok"}
    assert checks["student's vocabulary"].found == "297 tokens, 300 embeddings"
    assert "<|im_end|>" in checks["end of turn"].found


SPY = "import pathlib\npathlib.Path({mark!r}).touch()\nfrom transformers import {base}\nclass Mine({base}): pass\n"


@pytest.mark.parametrize("own_type", [True, False])
def test_code_that_comes_with_a_model_never_runs(own_type: bool, model_dir: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    auto_map = {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"}
    own = {"model_type": "mine", "architectures": ["Mine"]} if own_type else {}
    folder = changed(model_dir, tmp_path / "model", auto_map=auto_map, **own)
    (folder / "mine.py").write_text(SPY.format(mark=str(mark), base="PretrainedConfig"))
    checks = list(training_preflight.of_model(folder))
    assert {check.state for check in checks} == ({"fail"} if own_type else {"ok"})
    assert not mark.exists()


def test_code_that_comes_with_a_tokenizer_never_runs(model_dir: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    # A type whose own tokenizer transformers does not have: else it would take that one.
    folder = changed(model_dir, tmp_path / "model", model_type="mine", auto_map={"AutoConfig": "mine.Mine"})
    options = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
    (folder / "mine.py").write_text(SPY.format(mark=str(mark), base="PreTrainedTokenizer"))
    with pytest.raises(DataError, match="runs code that comes with it"):
        load_tokenizer(folder)
    assert not mark.exists()


class Spy:
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.mark),)


def test_weights_that_can_run_code_are_not_read(model_dir: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    folder = changed(model_dir, tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Spy(str(mark))))
    models.resolve(str(folder), say=print)  # beside safetensors they are not looked at
    assert {check.state for check in training_preflight.of_model(folder)} == {"ok"}
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"only \*\.bin weights.*Convert to safetensors"):
        models.resolve(str(folder), say=print)
    check, here = doctor.model(str(folder), None)
    assert (check.state, here) == ("fail", None)
    assert not mark.exists()
    pickle.loads((folder / "pytorch_model.bin").read_bytes())
    assert mark.exists(), "else this test could not fail"


def test_a_token_without_an_embedding(model_dir: Path, tmp_path: Path) -> None:
    folder = changed(model_dir, tmp_path)
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{n}|>" for n in range(5)]})
    tokenizer.save_pretrained(folder)
    checks = {check.name: check for check in training_preflight.of_model(folder)}
    # Control tokens that no text, no template and no role brings forth, as Gemma 3 has one.
    assert checks["student's vocabulary"].state == "ok"
    assert "never written: <|3|>, <|4|>" in checks["student's vocabulary"].found
    tokenizer.pad_token = "<|4|>"
    assert failed([training_preflight.embeddings(tokenizer, 300, 300)]).found.endswith("among 300: <|4|>")
    tokenizer.pad_token = None
    tokenizer.chat_template = tokenizer.chat_template + "<|3|>"
    assert failed([training_preflight.embeddings(tokenizer, 300, 300)]).found.endswith("among 300: <|3|>")


def test_a_tokenizer_with_words_the_model_has_not(model_dir: Path, tmp_path: Path) -> None:
    folder = changed(model_dir, tmp_path, vocab_size=250)
    check = failed(training_preflight.of_model(folder))
    assert check.found == "config.json promises 250 embeddings, the weights hold 300"
    check = failed([training_preflight.embeddings(load_tokenizer(folder), 250, 250)])
    assert check.found.startswith("47 tokens have no embedding among 250: ")
    assert "belongs to the model" in check.fix


def test_a_file_may_call_the_embeddings_otherwise_than_the_model(tmp_path: Path) -> None:
    """As Gemma 3's from 4B on and GPT-2's do."""
    from transformers import Gemma3Config, Gemma3TextConfig, GPT2Config, SiglipVisionConfig

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = Gemma3TextConfig(vocab_size=300, head_dim=8, **sizes)
    gemma = Gemma3Config(text_config=text, vision_config=SiglipVisionConfig(image_size=28, patch_size=14, **sizes))
    gpt2 = GPT2Config(vocab_size=300, n_embd=8, n_layer=1, n_head=1)
    for config, key in ((gemma, "language_model.model.embed_tokens.weight"), (gpt2, "wte.weight")):
        folder = tmp_path / config.model_type
        config.save_pretrained(folder)
        save_file({key: numpy.zeros((300, 8), numpy.float16)}, folder / "model.safetensors")
        assert training_preflight.embedding_rows(folder) == (300, 300)


def test_a_directory_without_embeddings(model_dir: Path, tmp_path: Path) -> None:
    folder = changed(model_dir, tmp_path)
    (folder / "model.safetensors").unlink()
    assert "holds model.embed_tokens.weight" in failed(training_preflight.of_model(folder)).found


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("config.json", "{", "not valid JSON"),
        ("config.json", "[]", "AttributeError"),
        ("config.json", '{"model_type": "llama", "hidden_size": "abc"}', "expected int, got str"),
        ("config.json", '{"model_type": "llama", "hidden_size": 8, "num_attention_heads": 3}', "hidden size"),
        ("tokenizer.json", "{}", "KeyError"),
        ("tokenizer.json", '{"added', "JSONDecodeError"),
        ("model.safetensors", "cut", "SafetensorError"),
        ("chat_template.jinja", "{% for %}", "TemplateSyntaxError"),
        ("chat_template.jinja", "{{ messages.__class__.__mro__ }}", "SecurityError"),
    ],
)
def test_damaged_files(file: str, text: str, says: str, model_dir: Path, tmp_path: Path) -> None:
    folder = changed(model_dir, tmp_path)
    (folder / file).write_text(text)
    check = failed(training_preflight.of_model(folder))
    assert (check.name, says in check.found) == ("student's files", True), check.found


@pytest.mark.parametrize("wrong", [CHATML.replace("<|im_end|>", ""), CHATML.replace("content }}", "content }}!")])
def test_a_template_by_which_nothing_ends(model_dir: Path, tmp_path: Path, wrong: str) -> None:
    folder = changed(model_dir, tmp_path)
    (folder / "chat_template.jinja").write_text(wrong)
    check = failed(training_preflight.of_model(folder))
    assert (check.name, "does not end the assistant's answer" in check.found) == ("end of turn", True)


# ---- the rows ----------------------------------------------------------------------------------------------------


def rows_failed(
    tokenizer: Any, made: dict[str, Any], change: Callable[[TokenRow], TokenRow] = lambda row: row, max_length: int = 99
) -> Check:
    row = token_row(tokenizer, made)
    asked = [prompt_ids(tokenizer, made["prompt"], "p/0")]
    return failed(training_preflight.of_rows(tokenizer, [made], [change(row)], asked, max_length, 300))


def test_rows_that_are_right(tokenizer: Any) -> None:
    for prompt in (QUESTION, [{"role": "system", "content": "Add."}, *QUESTION], "Q: What is 3 + 4?\nA:"):
        made = [
            example(prompt, " 3 + 4 = 7." if isinstance(prompt, str) else "3 + 4 = 7."),
            example(prompt, " <|im_end|>"),
        ]
        rows = [token_row(tokenizer, one) for one in made]
        asked = [prompt_ids(tokenizer, prompt, "p/0")] * 2
        checks = list(training_preflight.of_rows(tokenizer, made, rows, asked, 99, 300))
        assert [check.state for check in checks] == ["ok"] * 3, checks
    assert "2, of at most" in checks[0].found


def test_an_end_of_turn_outside_the_loss(tokenizer: Any) -> None:
    check = rows_failed(tokenizer, example(), lambda row: TokenRow(row.input_ids, [*row.labels[:-1], -100]))
    assert "not the end of turn 296" in check.found
    assert "never learn to stop" in check.found
    assert "--force" in check.fix
    without = rows_failed(tokenizer, example(), lambda row: TokenRow(row.input_ids[:-1], row.labels[:-1]))
    assert "not the end of turn 296" in without.found


def test_a_completion_of_which_nothing_is_learnt(tokenizer: Any) -> None:
    row = token_row(tokenizer, example())
    nothing = TokenRow(row.input_ids, [-100] * len(row.labels))
    check = failed([training_preflight.whole_rows(tokenizer, [row, nothing], 99, 300)])
    assert "row 2 of 2: no token carries a label" in check.found
    unequal = failed([training_preflight.whole_rows(tokenizer, [TokenRow([5, 6], [6])], 99, 300)])
    assert unequal.found == "training row 1 of 1: 2 input_ids but 1 labels"


def test_a_row_that_would_be_cut(tokenizer: Any) -> None:
    tokens = len(token_row(tokenizer, example()).input_ids)
    check = rows_failed(tokenizer, example(), max_length=tokens - 1)
    assert f"{tokens} tokens are more than the {tokens - 1}" in check.found
    assert "lower curate.max_length" in check.fix


@pytest.mark.parametrize(("positions", "max_length", "longest"), [(64, None, 64), (64, 32, 32), (32, 64, 32)])
def test_the_longest_row(positions: int, max_length: int | None, longest: int, model_dir: Path, tmp_path: Path) -> None:
    folder = changed(model_dir, tmp_path, max_position_embeddings=positions)
    assert training_preflight.limits(folder, {"max_length": max_length}) == (longest, 300)


def test_a_model_without_positions_takes_rows_of_any_length(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba", "vocab_size": 50}))
    assert training_preflight.limits(tmp_path, {}) == (2**31, 50)


def test_training_that_asks_otherwise_than_evaluation(tokenizer: Any) -> None:
    row = token_row(tokenizer, example())
    for asked, where in (
        (prompt_ids(tokenizer, [{"role": "system", "content": "x"}, *QUESTION], "p/0"), "at token"),
        (row.prompt[:-1], f"{len(row.prompt)} tokens against {len(row.prompt) - 1}"),
    ):
        check = failed([training_preflight.asked_alike([row, row], [row.prompt, asked])])
        assert "row 2 of 2: training and evaluation ask it differently" in check.found
        assert where in check.found
        assert "--force" in check.fix


def templated(tokenizer: Any, template: str) -> Any:
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other


def test_a_prompt_that_is_no_prefix_of_the_conversation(tokenizer: Any) -> None:
    drops = templated(tokenizer, "{% set messages = messages[1:] if messages|length > 2 else messages %}" + CHATML)
    check = rows_failed(drops, example([{"role": "system", "content": "Add."}, *QUESTION]))
    assert (check.name, "not how the model's template begins" in check.found) == ("prompt as prefix", True)
    assert "format: plain" in check.fix
    assert next(iter(training_preflight.of_rows(drops, [example()], [token_row(drops, example())], [()], 99, 300)))


def test_a_template_that_writes_the_answer_otherwise(tokenizer: Any) -> None:
    trims = templated(tokenizer, CHATML.replace("content }}", "content | trim }}"))
    row = token_row(trims, example())
    assert training_preflight.prefix(trims, [example()], [row]).state == "ok"
    check = rows_failed(trims, example(said=" 7"))
    assert "writes the answer otherwise than it is learnt: '7<|im_end|>" in check.found
    assert "without white space" in check.fix


def test_a_token_that_spans_prompt_and_completion(tokenizer: Any) -> None:
    check = rows_failed(tokenizer, example("What is 3 + 4? The ", "answer is 7."))
    assert "a token spans the end of the prompt" in check.found
    assert "with a space" in check.fix


def test_padding_that_hides_the_end_of_turn(tokenizer: Any) -> None:
    """As with a collator that tells padding by its token (transformers' own), where that is the end of the turn."""
    rows = [token_row(tokenizer, example(said="7")), token_row(tokenizer, example())]
    end = end_of_turn_id(tokenizer)

    class Batch(list[list[int]]):
        tolist = lambda self: list(self)  # noqa: E731
        sum = lambda self: sum(map(sum, self))  # noqa: E731

    def collate(features: list[dict[str, list[int]]], hides: bool, learns: bool, attends: bool) -> dict[str, Any]:
        longest = max(len(row["input_ids"]) for row in features)
        labels = [row["labels"] + [end if learns else -100] * (longest - len(row["labels"])) for row in features]
        mask = [[1] * len(row["labels"]) + [int(attends)] * (longest - len(row["labels"])) for row in features]
        if hides:
            labels = [[-100 if label == end else label for label in row] for row in labels]
        return {"labels": Batch(labels), "attention_mask": Batch(mask)}

    assert training_preflight.padding(lambda batch: collate(batch, False, False, False), rows).state == "ok"
    for fault, says in (((True, False, False), "lose the end"), ((False, True, False), "learn the padding"),
                        ((False, False, True), "attend to the padding")):  # fmt: skip
        check = failed([training_preflight.padding(lambda batch, fault=fault: collate(batch, *fault), rows)])
        assert says in check.found
        assert "padding token of its own" in check.fix


@pytest.mark.real
def test_the_padding_of_real_collators_where_it_is_the_end_of_turn(tokenizer: Any) -> None:
    from transformers import DataCollatorForSeq2Seq
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling as ByLength

    padded = copy.deepcopy(tokenizer)
    padded.pad_token = "<|im_end|>"
    rows = [token_row(padded, example(said="7")), token_row(padded, example())]
    assert training_preflight.padding(ByLength(pad_token_id=end_of_turn_id(padded)), rows).state == "ok"
    assert training_preflight.padding(ByLength(pad_token_id=0, padding_free=True), rows).state == "ok"
    assert training_preflight.padding(DataCollatorForSeq2Seq(padded), rows).state == "ok"
    failed([training_preflight.padding(DataCollatorForSeq2Seq(padded, label_pad_token_id=padded.pad_token_id), rows)])


def test_options_whose_adapter_nobody_serves_are_the_recipe_s_fault() -> None:
    for override in ("use_dora=true", "init_lora_weights=pissa", "modules_to_save=[lm_head]", "bias=all", "r=513"):
        with pytest.raises(RecipeError, match=r"student\.lora\.") as raised:
            load(E2E, [f"student.lora.{override}"])
        assert raised.value.exit_code == 2


# ---- what is shown -----------------------------------------------------------------------------------------------


def test_a_row_is_shown_with_its_loss_mask(tokenizer: Any) -> None:
    row = token_row(tokenizer, example(said="3 + 4 = 7.\n\nThe\u200b answer is 7."))
    learnt = len(completion_ids(tokenizer, "3 + 4 = 7.\n\nThe\u200b answer is 7."))
    assert show(tokenizer, row).splitlines() == [
        f"{len(row.labels)} tokens: {len(row.prompt)} of the prompt (·), {learnt} learnt (▶)",
        "· <|im_start|>user⏎",
        "· What is 3 + 4?<|im_end|>⏎",
        "· <|im_start|>assistant⏎",
        "▶ 3 + 4 = 7.⏎",
        "▶ ⏎",
        "▶ The\\u200b answer is 7.<|im_end|>",
    ]


def test_doctor_shows_a_solved_example_and_every_check(model_dir: Path) -> None:
    made = load(E2E, [f"student.model={model_dir}"])
    asked = problems(made.task, "train")[:1]
    checks, shown = doctor.training(made, model_dir, asked)
    assert [check.name for check in checks] == [
        *("student's family", "end of turn", "student's vocabulary"),
        *("training rows", "same prompts", "prompt as prefix"),
    ]
    assert {check.state for check in checks} == {"ok"}
    assert "· <|im_start|>system⏎" in shown
    assert shown.splitlines()[-1].startswith("▶ The answer is ")
    assert shown.endswith(".<|im_end|>")
    assert doctor.training(made, None, asked) == doctor.training(made, model_dir, []) == ([], "")
    tight = load(E2E, [f"student.model={model_dir}", "curate.max_length=12"])
    *others, check = doctor.training(tight, model_dir, asked)[0]
    assert (check.name, check.state) == ("row's length", "warn"), "it would be dropped and the run go on"
    assert {check.state for check in others} == {"ok"}
    tight = load(E2E, [f"student.model={model_dir}", "curate.max_length=12", "student.sft.max_length=12"])
    assert "tokens are more than the 12" in failed(doctor.training(tight, model_dir, asked)[0]).found


def test_doctor_shows_a_gold_answer_where_nothing_is_solved(model_dir: Path, tmp_path: Path) -> None:
    data = tmp_path / "own.jsonl"
    write_jsonl(data, [{"text": f"What is {n} + {n}?", "result": str(2 * n)} for n in range(1, 99)])
    own = load(E2E, [f"student.model={model_dir}"])
    task = TaskBlock(path=str(data), question="text", target="result", answer="number")
    own = own.model_copy(update={"task": task})
    asked = problems(task, "train")[:1]
    checks, shown = doctor.training(own, model_dir, asked)
    assert {check.state for check in checks} == {"ok"}
    assert f"▶ The answer is {asked[0].target}.<|im_end|>" in shown


# ---- the stage ---------------------------------------------------------------------------------------------------


def context(model_dir: Path, run_dir: Path, *overrides: str) -> tuple[stage.Context, Recipe]:
    made = load(E2E, [f"student.model={model_dir}", f"teacher.model={model_dir}", *overrides])
    return stage.Context(made, run_dir, Machine("cpu", (0,)), Reporter(None)), made


def test_training_starts_only_when_all_is_well(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Loaded(Exception):
        pass

    def loads(*_: Any, **__: Any) -> None:
        raise Loaded

    monkeypatch.setattr(student, "train", loads)
    here, recipe = context(model_dir, tmp_path)
    asked = problems(recipe.task, "train")[:2]
    made = []
    for problem in asked:
        chat = [{"role": "system", "content": "You add numbers."}, {"role": "user", "content": problem.question}]
        made.append(example(chat, "So.\nThe answer is 1.") | {"problem_id": problem.id})
    write_jsonl(tmp_path / "train.jsonl", made)
    with pytest.raises(Loaded):
        stage.train(here)
    assert "The first of 2 training rows, " in (shown := capsys.readouterr().out)
    assert "▶ The answer is 1.<|im_end|>" in shown

    write_jsonl(tmp_path / "train.jsonl", [made[0], made[1] | {"prompt": made[0]["prompt"]}])
    with pytest.raises(DataError, match="same prompts: row 2 of 2"):
        stage.train(here)
    write_jsonl(tmp_path / "train.jsonl", [made[0] | {"problem_id": "elsewhere/0"}])
    with pytest.raises(DataError, match="elsewhere/0 is none of the task's training problems"):
        stage.train(here)
    write_jsonl(tmp_path / "train.jsonl", made)
    short, _ = context(model_dir, tmp_path, "student.sft.max_length=20", "curate.max_length=20")
    with pytest.raises(DataError, match=r"tokens are more than the 20 .*lower curate\.max_length"):
        stage.train(short)
    assert len(read_jsonl(tmp_path / "train.jsonl")) == 2


@pytest.mark.parametrize("named", ["train", "sample"])
def test_an_encoder_is_refused_before_the_teacher_and_before_its_weights(
    named: str, model_dir: Path, tmp_path: Path
) -> None:
    encoder = changed(model_dir, tmp_path / "bert", model_type="bert", architectures=["BertForMaskedLM"])
    here, _ = context(model_dir, tmp_path, f"student.model={encoder}", "teacher.engine.max_model_len=4096")
    write_jsonl(tmp_path / "train.jsonl", [example()])
    with pytest.raises(DataError, match=r"BertForMaskedLM \(model_type bert\) is encoder-only.*take a causal model"):
        stage.STAGES[named](here)
