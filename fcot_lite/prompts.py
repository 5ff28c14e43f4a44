"""The one renderer. Sampling, training and evaluation get their token ids here, so they can't differ.

A prompt is a chat: an optional system message, solved examples as earlier turns, the question. The model's own chat
template turns it into ids; a completion is its text's ids and the token that ends the assistant's turn.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fcot_lite.errors import DataError
from fcot_lite.recipe import Prompt

Message = dict[str, str]


def load_tokenizer(model_dir: Path) -> Any:
    """The model's own tokenizer. Raises DataError where it has no chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    if not tokenizer.chat_template:
        raise DataError(f"{model_dir}: the tokenizer has no chat template; use an instruction-tuned model")
    return tokenizer


def messages(prompt: Prompt, question: str, solved: Sequence[tuple[str, str]]) -> list[Message]:
    """The chat that asks `question`; `solved` are (question, solution) pairs, of which the first `prompt.examples`
    are shown."""
    turns: list[Message] = []
    if prompt.system is not None:
        turns.append({"role": "system", "content": prompt.system})
    for example_question, solution in solved[: prompt.examples]:
        turns.append({"role": "user", "content": prompt.template.replace("{question}", example_question)})
        turns.append({"role": "assistant", "content": solution})
    turns.append({"role": "user", "content": prompt.template.replace("{question}", question)})
    return turns


def prompt_ids(tokenizer: Any, turns: Sequence[Message], where: str) -> tuple[int, ...]:
    """Token ids of the chat, ready for the assistant's turn.

    Raises DataError where a text holds one of the model's control tokens (`<|im_end|>` …): it would end the
    question early and speak in the assistant's name. Also where the template takes no such turns.
    """
    from jinja2 import TemplateError

    for turn in turns:
        for token in control_tokens(tokenizer):
            if token in turn["content"]:
                raise DataError(f"{where}: the text holds the control token {token!r}; take it out of the data")
    try:
        encoded = tokenizer.apply_chat_template(
            list(turns), add_generation_prompt=True, tokenize=True, return_dict=True
        )
    except TemplateError as error:
        raise DataError(
            f"{where}: the model's chat template refuses these turns ({error}); some take no `system` message"
        ) from error
    return tuple(encoded["input_ids"])


def completion_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Token ids of an answer and of the token that ends its turn. Control tokens inside `text` are spelt out."""
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return (*ids, end_of_turn_id(tokenizer))


def end_of_turn_id(tokenizer: Any) -> int:
    """The token that the chat template puts behind an assistant's answer: it must be learnt, and it ends generation.

    Not `eos_token_id`: base models name another one there (engines' trap: Qwen base ends chats with <|im_end|> but
    declares <|endoftext|>), and a student that never learns to end its turn runs on to max_tokens.
    Raises DataError where the template ends the answer with no single token.
    """
    question = [{"role": "user", "content": "1"}]
    whole = tokenizer.apply_chat_template([*question, {"role": "assistant", "content": "2"}], tokenize=False)
    start = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    if whole.startswith(start + "2"):
        rest = tokenizer(whole[len(start) + 1 :], add_special_tokens=False)["input_ids"]
        if rest and rest[0] in control_tokens(tokenizer).values():
            return int(rest[0])
    raise DataError("the chat template does not end the assistant's answer with a token of its own; use another model")


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """Every token that steers the model and is no text, with its id.

    `all_special_tokens` alone holds those with a role (eos, pad …): Qwen's <|im_start|> is not among them.
    """
    special = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return special | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
