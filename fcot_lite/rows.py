"""Training rows: token ids, what of them is learnt, and whether the student can learn it whole."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from fcot_lite.errors import DataError
from fcot_lite.prompts import completion_ids, prompt_ids
from fcot_lite.records import Example

IGNORED = -100  # the label of a token that is not learnt; torch's cross-entropy and TRL agree on it
Collate = Callable[[list[dict[str, list[int]]]], Mapping[str, Any]]  # rows → a batch of tensors
ANEW = "run again with --force, so that the rows are made anew"
MARKS = {False: "·", True: "▶"}


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One training row; `labels` repeats `input_ids` where the student learns and is -100 on the prompt."""

    input_ids: list[int]
    labels: list[int]

    @property
    def prompt(self) -> tuple[int, ...]:
        """What stands before the first token that is learnt."""
        asked = next((n for n, label in enumerate(self.labels) if label != IGNORED), len(self.labels))
        return tuple(self.input_ids[:asked])


def prompt_and_completion(example: Example) -> dict[str, Any]:
    """A row of train.jsonl, as TRL reads it: messages of a chat, or two texts, and where it came from."""
    prompt, said = example.prompt, example.completion
    chat = not isinstance(prompt, str)
    return {
        "prompt": list(prompt) if chat else prompt,
        "completion": [{"role": "assistant", "content": said}] if chat else said,
        "problem_id": example.problem_id,
        "sample_index": example.sample_index,
    }


def messages(example: Example) -> dict[str, Any]:
    """A row of messages.jsonl, as axolotl (type: chat_template) and LLaMA-Factory (formatting: sharegpt) read it: one
    list of turns, in which a plain prompt is the user's."""
    prompt = example.prompt
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    return {
        "messages": [*asked, {"role": "assistant", "content": example.completion}],
        "problem_id": example.problem_id,
        "sample_index": example.sample_index,
    }


def token_row(tokenizer: Any, example: Mapping[str, Any]) -> TokenRow:
    """A row of train.jsonl in ids: the prompt as sampling and evaluation render it, then what is learnt."""
    prompt = prompt_ids(tokenizer, example["prompt"], example["problem_id"])
    said = example["completion"]
    completion = completion_ids(tokenizer, said if isinstance(said, str) else said[0]["content"])
    return TokenRow([*prompt, *completion], [IGNORED] * len(prompt) + list(completion))


def check_rows(rows: Sequence[TokenRow], *, end_of_turn_id: int, max_length: int, vocab_size: int) -> None:
    """Raises DataError naming the first row that the student cannot learn from whole, ending included."""
    if not rows:
        raise DataError("the training set is empty: curation accepted no sample; see curation.json for the reasons")
    for number, row in enumerate(rows, 1):
        if fault := _fault(row, end_of_turn_id, max_length, vocab_size):
            raise DataError(f"training row {number} of {len(rows)}: {fault}")


def _fault(row: TokenRow, end_of_turn_id: int, max_length: int, vocab_size: int) -> str | None:
    """What is wrong; what to do."""
    if len(row.input_ids) != len(row.labels):
        return f"{len(row.input_ids)} input_ids but {len(row.labels)} labels; {ANEW}"
    if len(row.input_ids) > max_length:
        return (
            f"{len(row.input_ids)} tokens are more than the {max_length} that student.sft.max_length and the model "
            "allow, and a cut rationale has no answer; lower curate.max_length so that curation drops it"
        )
    if all(label == IGNORED for label in row.labels[1:]):  # nothing predicts the first token
        return f"no token carries a label, all are {IGNORED}, so there is nothing to learn; {ANEW}"
    if any(label not in (IGNORED, token) for token, label in zip(row.input_ids, row.labels, strict=True)):
        return f"a label is neither its token nor {IGNORED}; {ANEW}"
    if not 0 <= min(row.input_ids) <= max(row.input_ids) < vocab_size:
        return f"a token id is outside the student's vocabulary of {vocab_size}, as of another model; {ANEW}"
    if row.labels[-1] != end_of_turn_id:
        return (
            f"the last label is {row.labels[-1]}, not the end of turn {end_of_turn_id}, so that the student would "
            f"never learn to stop; {ANEW}"
        )
    return None


def show(tokenizer: Any, row: TokenRow) -> str:
    """The row as text with its loss mask: ▶ stands before what is learnt, · before what is not. Control tokens are
    written out, and a line break is shown as ⏎."""
    learnt = sum(label != IGNORED for label in row.labels)
    lines = [f"{len(row.labels)} tokens: {len(row.labels) - learnt} of the prompt (·), {learnt} learnt (▶)"]
    for is_learnt, run in groupby(zip(row.input_ids, row.labels, strict=True), key=lambda token: token[1] != IGNORED):
        text = tokenizer.decode([token for token, _ in run], clean_up_tokenization_spaces=False)
        lines += [f"{MARKS[is_learnt]} {_visible(line)}" for line in text.replace("\n", "⏎\n").splitlines()]
    return "\n".join(lines)


def _visible(line: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
