"""What would spoil a training, found before it begins: each check says what is wrong and what to do about it.

No weights are loaded here. The sample stage asks what the student's directory tells, before the teacher's hours; the
train stage asks everything, and `fcot doctor RECIPE` shows everything. Weights that can run code are refused where
models are looked for (models.py), options that give an adapter which vLLM can't serve where a recipe is read
(options.py).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fcot_lite import tasks
from fcot_lite.errors import DataError
from fcot_lite.files import read_json
from fcot_lite.preflight import Check
from fcot_lite.prompts import TEMPLATE_VALUES, control_tokens, end_of_turn_id, load_tokenizer, prompt_ids
from fcot_lite.recipe import Recipe
from fcot_lite.rows import ANEW, IGNORED, Collate, TokenRow, check_rows, token_row
from fcot_lite.teacher import rendered

REPLACE = "complete or replace the model's files, or name another model"


def refuse(checks: Iterable[Check]) -> None:
    """Raises DataError for the first check that fails. Those behind it are not made."""
    for check in checks:
        if check.state == "fail":
            raise DataError(f"{check.name}: {check.found}; {check.fix}")


def ready(recipe: Recipe, model_dir: Path, examples: Sequence[Mapping[str, Any]]) -> list[TokenRow]:
    """The rows of train.jsonl in ids. Raises DataError where anything would spoil the training."""
    refuse(of_model(model_dir))
    tokenizer = load_tokenizer(model_dir)
    rows = [token_row(tokenizer, example) for example in examples]
    by_id = {problem.id: problem for problem in tasks.problems(recipe.task, "train")}
    if strange := {example["problem_id"] for example in examples} - by_id.keys():
        raise DataError(f"train.jsonl: {min(strange)} is none of the task's training problems; run with --force")
    problems = [by_id[example["problem_id"]] for example in examples]
    chats = rendered(recipe.task, recipe.prompts[recipe.student.prompt], problems)
    asked = [prompt_ids(tokenizer, chat, problem.id) for chat, problem in zip(chats, problems, strict=True)]
    refuse(of_rows(tokenizer, examples, rows, asked, *limits(model_dir, recipe.student.sft)))
    return rows


def of_model(model_dir: Path) -> Iterator[Check]:
    """What the student's directory tells: is it a model that can be trained here, does its tokenizer belong to it?"""
    try:
        check = family(read_json(model_dir / "config.json"))
        yield check
        if check.state == "fail":
            return
        tokenizer = load_tokenizer(model_dir)
        yield template(tokenizer)
        yield embeddings(tokenizer, *embedding_rows(model_dir))
    except DataError as error:
        yield Check("student's files", "fail", str(error), REPLACE, data=True)
    except Exception as error:  # noqa: BLE001 - anybody's files: the libraries raise whatever they stumble over
        found = f"{model_dir}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        yield Check("student's files", "fail", found, REPLACE, data=True)


def of_rows(
    tokenizer: Any,
    examples: Sequence[Mapping[str, Any]],
    rows: Sequence[TokenRow],
    asked: Sequence[tuple[int, ...]],
    max_length: int,
    vocab_size: int,
) -> Iterator[Check]:
    """What the training set tells. `rows` are the `examples` of train.jsonl in ids, `asked` the ids by which evaluation
    asks the same problems."""
    yield whole_rows(tokenizer, rows, max_length, vocab_size)
    yield asked_alike(rows, asked)
    yield prefix(tokenizer, examples, rows)


# ---- the model ---------------------------------------------------------------------------------------------------


def family(config: Mapping[str, Any]) -> Check:
    """Of a config.json: a model that writes text from left to right, by code of transformers' own."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind, architectures = str(config.get("model_type")), config.get("architectures") or []
    named = f"{', '.join(architectures) or 'no architecture'} (model_type {kind})"
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and "auto_map" in config:
        return _no_student(
            f"{named} runs only by code that comes with it, which fcot never executes",
            "take a model that transformers has code for",
        )
    if config.get("is_encoder_decoder"):
        return _no_student(
            f"{named} is an encoder–decoder: its answer does not continue its prompt, as training and serving need it",
            "take a causal model such as Qwen2.5, Llama, SmolLM2, Gemma or GPT-2",
        )
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder"):
        return _no_student(
            f"{named} is encoder-only: it fills gaps in a text and can't write one",
            "take a causal model such as Qwen2.5, Llama, SmolLM2, Gemma or GPT-2",
        )
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    if causal is None or (architectures and causal not in architectures):
        return _no_student(
            f"{named} is no causal language model that transformers knows",
            f"take a model whose config.json names {causal or 'a ForCausalLM architecture'}",
        )
    return Check("student's family", "ok", named)


def _no_student(found: str, fix: str) -> Check:
    return Check("student's family", "fail", found, fix, data=True)


def template(tokenizer: Any) -> Check:
    """The end of a turn is one token: learnt by every row, and what ends a generation."""
    try:
        end = tokenizer.convert_ids_to_tokens(end_of_turn_id(tokenizer))
    except DataError as error:
        return Check("end of turn", "fail", str(error), "take a model whose template ends turns so", data=True)
    return Check("end of turn", "ok", f"{end} is learnt and ends the answer")


def embedding_rows(model_dir: Path) -> tuple[int, int]:
    """(rows that config.json promises, rows in the files of weights) of the input embeddings. Reads headers only."""
    import torch
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model_dir, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    table = model.get_input_embeddings()
    # By the end of its name alone: GPT-2's file leaves out `transformer.`, and Gemma 3's says `language_model.model.`
    # where the model says `model.language_model.`.
    name = next(f"{name}.weight" for name, module in model.named_modules() if module is table)
    own = ".".join(name.split(".")[-2:])
    for file in sorted(model_dir.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for key in weights.keys():  # noqa: SIM118 - it is no dict
                if f".{key}".endswith(f".{own}"):
                    return table.num_embeddings, weights.get_slice(key).get_shape()[0]
    raise DataError(f"{model_dir}: no file of weights holds {name}; fetch the model again")


def embeddings(tokenizer: Any, promised: int, rows: int) -> Check:
    """Every token that a text or the template can bring forth has an embedding."""
    name = "student's vocabulary"
    if promised != rows:
        found = f"config.json promises {promised} embeddings, the weights hold {rows}"
        return Check(name, "fail", found, "fetch the model's directory again, all from one place", data=True)
    beyond = {token: index for token, index in tokenizer.get_vocab().items() if index >= rows}
    # Gemma 3's <image_soft_token> lies beyond its text model's embeddings and can't come up: control tokens inside a
    # text are spelt out, so that only the template and the tokens with a role bring any.
    controls = control_tokens(tokenizer)
    with_role = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token}
    reachable = [
        token
        for token in beyond
        if token not in controls or token in with_role or token in (tokenizer.chat_template or "")
    ]
    if reachable:
        found = f"{len(reachable)} tokens have no embedding among {rows}: {', '.join(sorted(reachable)[:3])}"
        fix = "take the tokenizer that belongs to the model, or resize the model's embeddings and save it"
        return Check(name, "fail", found, fix, data=True)
    unused = f"; never written: {', '.join(sorted(beyond))}" if beyond else ""
    return Check(name, "ok", f"{len(tokenizer)} tokens, {rows} embeddings{unused}")


def limits(model_dir: Path, sft: Mapping[str, Any]) -> tuple[int, int]:
    """(the most tokens a row may have, the size of the vocabulary), by config.json and `sft`."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model_dir, trust_remote_code=False).get_text_config()
    return longest_row(config, sft), config.vocab_size


def longest_row(config: Any, sft: Mapping[str, Any]) -> int:
    """By sft.max_length and the positions that the model has; some, such as Mamba, have no end of them."""
    positions = getattr(config, "max_position_embeddings", None) or 2**31
    return min(sft.get("max_length") or positions, positions)


# ---- the rows ----------------------------------------------------------------------------------------------------


def whole_rows(tokenizer: Any, rows: Sequence[TokenRow], max_length: int, vocab_size: int) -> Check:
    try:
        end = end_of_turn_id(tokenizer)
        check_rows(rows, end_of_turn_id=end, max_length=max_length, vocab_size=vocab_size)
    except DataError as error:
        found, _, fix = str(error).partition("; ")
        return Check("training rows", "fail", found, fix, data=True)
    longest = max(len(row.input_ids) for row in rows)
    learnt = sum(label != IGNORED for row in rows for label in row.labels)
    return Check("training rows", "ok", f"{len(rows)}, of at most {longest} tokens; {learnt} tokens are learnt")


def asked_alike(rows: Sequence[TokenRow], asked: Sequence[tuple[int, ...]]) -> Check:
    """The student is evaluated with the very ids it was trained to answer."""
    for number, (row, ids) in enumerate(zip(rows, asked, strict=True), 1):
        if row.prompt != ids:
            at = next((n for n, (a, b) in enumerate(zip(row.prompt, ids, strict=False)) if a != b), None)
            where = f"at token {at}" if at is not None else f"{len(row.prompt)} tokens against {len(ids)}"
            found = f"row {number} of {len(rows)}: training and evaluation ask it differently ({where})"
            return Check("same prompts", "fail", found, ANEW, data=True)
    return Check("same prompts", "ok", "training and evaluation ask with the same token ids")


def prefix(tokenizer: Any, examples: Sequence[Mapping[str, Any]], rows: Sequence[TokenRow]) -> Check:
    """A prompt and what is learnt are, side by side, the conversation as the model's own template writes it: else the
    student learns an answer that nothing it was made for would lead up to."""
    controls = control_tokens(tokenizer)
    for number, (example, row) in enumerate(zip(examples, rows, strict=True), 1):
        fault = _prefix_fault(tokenizer, controls, example, row)
        if fault:
            return Check("prompt as prefix", "fail", f"row {number} of {len(rows)}: {fault[0]}", fault[1], data=True)
    return Check("prompt as prefix", "ok", "prompt + completion are the template's own conversation, token by token")


def _prefix_fault(
    tokenizer: Any, controls: Mapping[str, int], example: Mapping[str, Any], row: TokenRow
) -> tuple[str, str] | None:
    prompt, said = example["prompt"], example["completion"]
    if isinstance(prompt, str):
        texts, whole = [prompt, said], tokenizer(f"{prompt}{said}")["input_ids"]
    else:
        turns = [*prompt, *said]
        texts = [turn["content"] for turn in turns]
        whole = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True, **TEMPLATE_VALUES)["input_ids"]
    if any(token in text for text in texts for token in controls):
        return None  # spelt out on purpose, where the template would have let it speak
    asked = len(row.prompt)
    if tuple(whole[:asked]) != row.prompt:
        if isinstance(prompt, str):
            return (
                "a token spans the end of the prompt and the start of the completion",
                "begin the prompt's `completion` with a space, and let its `template` end without one",
            )
        return (
            "the prompt is not how the model's template begins the whole conversation",
            "take a model whose template neither adds to nor drops from earlier turns, or a prompt of format: plain",
        )
    if not isinstance(prompt, str) and whole[asked : len(row.input_ids)] != row.input_ids[asked:]:
        return (
            "the model's template writes the answer otherwise than it is learnt: "
            f"{tokenizer.decode(whole[asked:])[:60]!r}",
            "let the prompt's `completion` begin and end without white space, or take another model",
        )
    return None


def padding(collate: Collate, rows: Sequence[TokenRow]) -> Check:
    """What fills a batch up is not learnt and not attended to, and no end of turn goes with it, also where the padding
    token is the one that ends a turn."""
    batch = [min(rows, key=lambda row: len(row.labels)), max(rows, key=lambda row: len(row.labels))]
    filled = collate([{"input_ids": row.input_ids, "labels": row.labels} for row in batch])
    learnt = [label for row in filled["labels"].tolist() for label in row if label != IGNORED]
    if learnt != [label for row in batch for label in row.labels if label != IGNORED]:
        found = "the batches learn the padding, or lose the end of turn to it"
        return Check("padding", "fail", found, "give the tokenizer a padding token of its own", data=True)
    mask = filled.get("attention_mask")
    if mask is not None and int(mask.sum()) != sum(len(row.labels) for row in batch):
        found = "the batches attend to the padding"
        return Check("padding", "fail", found, "give the tokenizer a padding token of its own", data=True)
    return Check("padding", "ok", "neither learnt nor attended to")
