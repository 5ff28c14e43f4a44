"""How a question is put, and the one renderer. Sampling, training and evaluation get their token ids here, so they
can't differ.

A prompt is a chat (an optional system message, solved examples as earlier turns, the question) that the model's own
template turns into ids, or plain text that the model continues. What stands in a question is text and nothing else: a
control token of the model written there (`<|im_end|>` …) is spelt out.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fcot_lite.errors import DataError
from fcot_lite.records import AnswerKind, Sample

Message = dict[str, str]
Rendered = list[Message] | str  # a chat, or plain text
# How an answer of each kind looks, where a template says {answer_form}.
ANSWER_FORMS: Mapping[AnswerKind, str] = {
    "number": "<number>",
    "choice": "(<letter>)",
    "yes_no": "<yes or no>",
    "letters": "<letters>",
    "text": "<answer>",
    "math": "<answer>",
}
# What each text of a prompt may hold in braces. LaTeX has braces too: \boxed{x}, \frac{a}{b} are no places.
PLACES = {
    "template": ("question", "answer_form"),
    "system": ("answer_form",),
    "completion": ("rationale", "final_sentence", "answer"),
}
_PLACE = re.compile(r"\\[A-Za-z]+(?:\{\w*\})+|\{(\w+)\}")
ARROW = "-->"
DAY = date(2024, 7, 26)  # what Llama 3.2's template writes where nobody tells it the date
# What every template is rendered with. A rationale stands in the answer, in plain sight, so templates that can think
# (Qwen3, SmolLM3) are asked not to: else they put a block of it before an answer and leave it out of the prompt, which
# then is no prefix of the whole. Some (Llama 3.2, SmolLM3) write today's date: with it a student would be evaluated by
# another prompt than it was trained on, and no stored sample would be found again on another day.
TEMPLATE_VALUES = {"enable_thinking": False, "strftime_now": DAY.strftime}
Stop = Annotated[str, Field(min_length=1)]  # an empty one would end every text at once


class Prompt(BaseModel):
    """How a question is put, and what a student that is trained with it learns to say.

    `template` holds {question}, and as `system` {answer_form} where it says how an answer looks. `examples` solved ones
    come before it: as earlier turns of a chat, or in plain text one after the other. `answer_trigger` is appended to
    the rationale for a second call that only answers (the paper's). `stop` ends a generation in addition to
    sampling.stop. `completion` is the training target; it holds {final_sentence} ("The answer is 12.") or the bare
    {answer}, and without {rationale} the student learns the answer alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    template: str = "{question}"
    system: str | None = None
    examples: Annotated[int, Field(ge=0, le=64)] = 0  # more would fill a small model's context
    format: Literal["chat", "plain"] = "chat"
    answer_trigger: str | None = None
    stop: list[Stop] = []
    completion: str = "{rationale}\n{final_sentence}"

    def identity(self) -> dict[str, Any]:
        """What shapes the texts that this prompt brings forth. What is at its default is left out where it was added
        after samples had been drawn, so that those keep their place in the store."""
        later = {"format", "answer_trigger", "stop"}
        return self.model_dump(include={"template", "system", "examples"}) | self.model_dump(
            include=later, exclude_defaults=True
        )


# The paper's prompts to the letter (arXiv 2212.10071; its code at a2ca4d2: src/data/format.py), and the one that suits
# chat models. Any of them may be the teacher's prompt, an evaluation's, or a student's: a recipe names it, and may
# define one of its own under `prompts:`.
METHODS: Mapping[str, Prompt] = {
    "zero_shot": Prompt(
        template="Q: {question}\nA: The answer is", format="plain", stop=["Q:"], completion=" {answer}."
    ),
    "zero_shot_cot": Prompt(
        template="Q: {question}\nA: Let's think step by step.",
        format="plain",
        answer_trigger="\nTherefore, the answer is",
        stop=["Q:"],
    ),
    "few_shot_cot": Prompt(template="Q: {question}\nA:", format="plain", examples=4, stop=["Q:"]),
    # The best of six wordings on five tasks, per right rationale and per token (docs/prompts.md).
    "chat_cot": Prompt(
        system="You solve problems. Reason in short steps, without code, and end with the answer.", examples=4
    ),
    "fine_tune": Prompt(completion="{final_sentence}"),
    "fine_tune_cot": Prompt(),
    "fine_tune_paper": Prompt(template="{question} ###", format="plain", stop=["END"], completion=" {answer} END"),
    "fine_tune_cot_paper": Prompt(
        template="{question} ###", format="plain", stop=["END"], completion=" {rationale} --> {answer} END"
    ),
    # What the GPT-3 students were really trained on (5a5104a, template "special").
    "fine_tune_cot_gpt3": Prompt(
        template="{question}\n\n###\n\n",
        format="plain",
        stop=["END"],
        completion=" {rationale}\n\n-->\n\n{answer} END",
    ),
}


def load_tokenizer(model_dir: Path) -> Any:
    """The model's own tokenizer, which runs no code that comes with it. Raises DataError where it takes such code, or
    where nothing would end an answer."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_dir, trust_remote_code=False)
    except ValueError as error:  # a question on the terminal, were it not for trust_remote_code
        if "custom code" not in str(error):
            raise
        raise DataError(f"{model_dir}: its tokenizer runs code that comes with it; take another model") from error
    if not tokenizer.chat_template and tokenizer.eos_token_id is None:
        raise DataError(f"{model_dir}: the tokenizer has no chat template and no eos token; take another model")
    return tokenizer


def render(prompt: Prompt, question: str, solved: Sequence[tuple[str, str]], answer_form: str = "<answer>") -> Rendered:
    """The chat or the text that asks `question`; `solved` are (question, solution) pairs, of which the first
    `prompt.examples` are shown. `answer_form` says how an answer looks, such as <number>."""

    def put(text: str) -> str:
        # In one pass: a question that holds "{answer_form}" keeps it.
        values = {"question": text, "answer_form": answer_form}
        return re.sub("{(question|answer_form)}", lambda place: values[place[1]], prompt.template)

    shown = solved[: prompt.examples]
    system = None if prompt.system is None else prompt.system.replace("{answer_form}", answer_form)
    if prompt.format == "plain":
        start = "" if system is None else f"{system}\n\n"
        return start + "".join(f"{put(q)} {solution}\n\n" for q, solution in shown) + put(question)
    turns: list[Message] = []
    if system is not None:
        turns.append({"role": "system", "content": system})
    for example_question, solution in shown:
        turns.append({"role": "user", "content": put(example_question)})
        turns.append({"role": "assistant", "content": solution})
    turns.append({"role": "user", "content": put(question)})
    return turns


def completion(prompt: Prompt, rationale: str, answer: str, final_sentence: str) -> str:
    """What the student learns to say."""
    values = {"rationale": rationale, "answer": answer, "final_sentence": final_sentence}
    return re.sub("{(rationale|answer|final_sentence)}", lambda place: values[place[1]], prompt.completion)


def unknown_places(field: str, text: str) -> list[str]:
    """What stands in braces in a prompt's `field` and is none of its places: it would be sent, or learnt, as it is."""
    return [f"{{{name}}}" for name in _PLACE.findall(text) if name and name not in PLACES[field]]


def split_answer(prompt: Prompt, sample: Sample) -> tuple[str, str]:
    """(rationale, statement of the answer) of what a model said, where the prompt tells them apart: by a second call,
    by the arrow that its students learn, or because it asks for the answer alone. Else the statement is "", and the
    rationale holds it.

    The last arrow is the one before the answer. "The answer is" is written where the model had no need to say it.
    """
    if sample.answer_text is not None:
        return sample.text, _stated(prompt.answer_trigger or "", sample.answer_text)
    if "{rationale}" in prompt.completion and ARROW in prompt.completion:
        rationale, arrow, answer = sample.text.rpartition(ARROW)
        return (rationale, _stated("The answer is", answer)) if arrow else (sample.text, "")
    bare = "{answer}" in prompt.completion and "{rationale}" not in prompt.completion
    if bare or prompt.template.endswith("The answer is"):
        return "", _stated("The answer is", sample.text)
    return sample.text, ""


def _stated(words: str, answer: str) -> str:
    """The colon keeps "The answer is: not guilty" from being a denial of "guilty"; nothing of it reaches a model."""
    colon = ":" if re.match(r"\s*not\b", answer, re.IGNORECASE) else ""
    return f"{words}{colon}{'' if not answer or answer[0].isspace() else ' '}{answer}"


def whole_text(prompt: Prompt, sample: Sample) -> str:
    """What a model said, as it is graded: both calls in one where it was asked twice, and with the words that state an
    answer where the prompt has them (`The answer is`) or the student learnt others (`-->`)."""
    return "".join(split_answer(prompt, sample))


def prompt_ids(tokenizer: Any, rendered: Rendered, where: str) -> tuple[int, ...]:
    """Token ids of the chat, ready for the assistant's turn, or of the text.

    Control tokens of the model inside a text are spelt out: they would end the question early and speak in the
    assistant's name. Raises DataError where the template takes no such turns.
    """
    from jinja2 import TemplateError

    if not isinstance(rendered, str) and not tokenizer.chat_template:
        raise DataError(
            f"{where}: the tokenizer has no chat template; use an instruction-tuned model, or a prompt of format: plain"
        )
    try:
        if isinstance(rendered, str):
            return _spelt_out(tokenizer, rendered, add_special_tokens=True)
        controls = control_tokens(tokenizer)
        if not any(token in turn["content"] for turn in rendered for token in controls):
            encoded = tokenizer.apply_chat_template(
                list(rendered), add_generation_prompt=True, tokenize=True, return_dict=True, **TEMPLATE_VALUES
            )
            return tuple(encoded["input_ids"])
        return _chat_ids_in_pieces(tokenizer, rendered, where)
    except TemplateError as error:
        raise DataError(
            f"{where}: the model's chat template refuses these turns ({error}); some take no `system` message"
        ) from error
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:  # of a template, or half a character
        raise DataError(
            f"{where}: can't be turned into tokens ({type(error).__name__}: {error}); look at this question, at the "
            "prompt and at the chat template of the model's tokenizer"
        ) from error


def _chat_ids_in_pieces(tokenizer: Any, turns: Sequence[Message], where: str) -> tuple[int, ...]:
    """The template's own marks as control tokens, each turn's text spelt out."""
    marks = [f"@@{number}@@" for number in range(len(turns))]
    while any(mark in turn["content"] for mark in marks for turn in turns):
        marks = [f"@{mark}@" for mark in marks]
    marked = [{"role": turn["role"], "content": mark} for turn, mark in zip(turns, marks, strict=True)]
    text = tokenizer.apply_chat_template(marked, add_generation_prompt=True, tokenize=False, **TEMPLATE_VALUES)
    ids: list[int] = []
    for mark, turn in zip(marks, turns, strict=True):
        before, found, text = text.partition(mark)
        if not found:
            raise DataError(f"{where}: the chat template changes what it is given, and the text holds a control token")
        ids += tokenizer(before, add_special_tokens=False)["input_ids"]
        ids += _spelt_out(tokenizer, turn["content"])
    return (*ids, *tokenizer(text, add_special_tokens=False)["input_ids"])


def _spelt_out(tokenizer: Any, text: str, add_special_tokens: bool = False) -> tuple[int, ...]:
    # split_special_tokens leaves those whole that the tokenizer does not call special, such as Qwen's <tool_call>:
    # there the text is cut behind its first character.
    cuts = [0, *(match.start() + 1 for match in _not_special(tokenizer).finditer(text)), len(text)]
    ids: list[int] = []
    for start, end in pairwise(cuts):
        with_start = add_special_tokens and start == 0
        piece = tokenizer(text[start:end], add_special_tokens=with_start, split_special_tokens=True)
        ids += piece["input_ids"]
    return tuple(ids)


@lru_cache(maxsize=8)
def _not_special(tokenizer: Any) -> re.Pattern[str]:
    """Where one of the control tokens begins that are not special."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    others = [re.escape(token) for token in control_tokens(tokenizer) if token not in special]
    return re.compile(f"(?=(?:{'|'.join(others)}))" if others else "(?!)")


def completion_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Token ids of an answer and of the token that ends its turn. Control tokens inside `text` are spelt out."""
    return (*_spelt_out(tokenizer, text), end_of_turn_id(tokenizer))


def end_of_turn_id(tokenizer: Any) -> int:
    """The token that the chat template puts behind an assistant's answer: it must be learnt, and it ends generation.

    Not `eos_token_id`: base models name another one there (engines' trap: Qwen base ends chats with <|im_end|> but
    declares <|endoftext|>), and a student that never learns to end its turn runs on to max_tokens. It is the eos token
    where there is no template, as with GPT-2. Raises DataError where the template ends the answer with no single token.
    """
    if not tokenizer.chat_template:
        return int(tokenizer.eos_token_id)
    return _end_of_turn_id(tokenizer, tokenizer.chat_template)


@lru_cache(maxsize=8)  # asked for each row; rendering the template twice took half of curation's time
def _end_of_turn_id(tokenizer: Any, _template: str) -> int:
    question = [{"role": "user", "content": "1"}]
    answered = [*question, {"role": "assistant", "content": "2"}]
    whole = tokenizer.apply_chat_template(answered, tokenize=False, **TEMPLATE_VALUES)
    start = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False, **TEMPLATE_VALUES)
    if whole.startswith(start) and (said := whole[len(start) :].lstrip()).startswith("2"):  # Mistral's puts a space
        rest = tokenizer(said[1:], add_special_tokens=False)["input_ids"]
        if rest and rest[0] in control_tokens(tokenizer).values():
            return int(rest[0])
    raise DataError("the chat template does not end the assistant's answer with a token of its own; use another model")


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """Every token that steers the model and is no text, with its id: all that were added to the vocabulary, but for
    mere white space, which some models (Phi, Gemma) hold as added tokens.

    `all_special_tokens` alone holds those with a role (eos, pad …): Qwen's <|im_start|> is not among them, and of its
    <tool_call> not even the tokenizer says that it is special.
    """
    added = {
        token.content: index
        for index, token in tokenizer.added_tokens_decoder.items()
        if token.special or len(token.content.strip("▁ \t\r\n")) > 1
    }
    return added | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
