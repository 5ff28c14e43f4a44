"""What is wrong with a recipe's prompts, before a model is asked anything."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from fcot_lite.answers import final_sentence, grade
from fcot_lite.plain_yaml import Key
from fcot_lite.prompts import PLACES, Prompt, completion, unknown_places, whole_text
from fcot_lite.records import AnswerKind, Problem, Sample
from fcot_lite.task_block import at

# One problem of each kind, whose label a student says without a fault. "not" and "no" are what a grader may stumble on.
LABELLED: Mapping[AnswerKind, Problem] = {
    "number": Problem("label", "How many?", "12"),
    "choice": Problem("label", "Which?", "B", "choice", {"choices": ["red", "blue"]}),
    "yes_no": Problem("label", "Is it?", "no", "yes_no"),
    "letters": Problem("label", "Which letters?", "nyda", "letters"),
    "text": Problem("label", "Which verdict?", "not guilty", "text"),
    "math": Problem("label", "How many?", "12", "math"),
}


def prompt_faults(prompts: Mapping[str, Any]) -> Iterator[tuple[Key, str]]:
    """By key; values of a wrong type are passed over."""
    for name, prompt in prompts.items():
        for field, places in PLACES.items():
            if unknown := unknown_places(field, at(prompt, str, field, default="")):
                there = " and ".join(f"{{{place}}}" for place in places)
                yield ("prompts", name, field), f"{unknown[0]} would stay as it is; what is filled in here is {there}"
        if at(prompt, str, "template", default="{question}").count("{question}") != 1:
            yield ("prompts", name, "template"), "must hold {question} exactly once"
        said = at(prompt, str, "completion", default="{answer}")
        if said.count("{answer}") + said.count("{final_sentence}") != 1 or said.count("{rationale}") > 1:
            yield (
                ("prompts", name, "completion"),
                "must hold {final_sentence} or {answer} exactly once, and {rationale} at most once",
            )


def label_faults(name: str, value: Any, kind: str | None, stop: Sequence[Any]) -> Iterator[tuple[Key, str]]:
    """Whether a student that says its label to the letter is graded right, for answers of `kind` or, where that is not
    known yet, of every kind. Else its training would be for nothing, which shows only after it."""
    try:
        prompt = Prompt.model_validate(value)
    except ValidationError:
        return  # named elsewhere
    for problem in LABELLED.values():
        if kind is not None and problem.answer_kind != kind:
            continue
        said = completion(prompt, "So it is.", problem.target, final_sentence(problem))
        for end in [*prompt.stop, *(text for text in stop if isinstance(text, str) and text)]:
            said = said.partition(end)[0]
        verdict = grade(whole_text(prompt, Sample(problem.id, 0, said, None, "stop", 0, 0, 0)), problem)
        if not verdict.correct:
            yield (
                ("prompts", name, "completion"),
                f"a student that learns it says {said!r} for the {problem.answer_kind} {problem.target!r}, and that "
                f'is graded "{verdict.reason}"; end it with {{final_sentence}}, or as the paper does with '
                '" --> {answer} END" and stop: [END]',
            )
            return
