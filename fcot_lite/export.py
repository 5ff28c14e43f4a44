"""A finished run's student for the world outside: merged weights or the adapter, with a model card, the line that
serves it, and a check that what goes out answers as what was evaluated.
"""

import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from fcot_lite import models, student, tasks
from fcot_lite.engines import Engine
from fcot_lite.engines.vllm import Engines, adapter_rank, has_adapters, lora_rank_limit
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.evaluate import Evaluation, Student, summary
from fcot_lite.files import read_json, read_record, sha256_file, sha256_json, whole_folder, write_atomic, write_json
from fcot_lite.machine import Machine
from fcot_lite.model_card import BASES, model_card, upstream
from fcot_lite.prompts import ANSWER_FORMS, end_of_turn_id, load_tokenizer, render
from fcot_lite.recipe import Recipe
from fcot_lite.store import SampleStore
from fcot_lite.teacher import Progress

Target = Literal["merged", "adapter"]
RECORD = "fcot_export.json"  # in the exported folder: what it is and how it compares; only such a folder is replaced
EVALUATED = "the student as the run evaluated it"
SERVED = "the run's adapter, served on the unquantised base"


def check(recipe: Recipe, to: Target, base: student.Base, folder: Path) -> None:
    """Raises RecipeError where the run has no such thing, or `folder` holds something else than an earlier export."""
    method = recipe.student.method
    if to == "adapter" and method == "full":
        raise RecipeError("--to adapter: the run trained all weights (method: full); use --to merged")
    if base == "nf4" and (to != "merged" or method != "qlora"):
        raise RecipeError(
            f"--base nf4: only a qlora run merged has that choice (this is --to {to}, method {method}); leave it out"
        )
    if folder.exists() and not (folder / RECORD).is_file():
        raise RecipeError(f"{folder}: exists and is no earlier export; give another folder with -o")


def export(
    recipe: Recipe,
    run_dir: Path,
    result: Mapping[str, Any],
    store: SampleStore,
    machine: Machine,
    progress: Progress,
    *,
    to: Target,
    base: student.Base,
    folder: Path,
    problems: int,
) -> dict[str, Any]:
    """Writes `folder`, whole or not at all, and returns what its RECORD says, and the line that serves it.

    Its parity is between greedy answers to the first `problems` test questions: of merged weights and of the adapter
    they were made from; of all else (an adapter, weights that were all trained, merged ones whose adapter vLLM can't
    serve) and of what the run evaluated. Raises DataError where the run's student is not what the run trained,
    RecipeError for an adapter that nothing would serve.
    """
    adapter = run_dir / "adapter"
    trained = read_json(run_dir / "stages" / "train.json")
    written = trained["outputs"] | read_record(run_dir / "stages" / "evaluate.json").get("outputs", {})
    # Training's own, or where evaluation chose among the epochs, the one that it put there.
    outputs = {name: sha256 for name, sha256 in written.items() if name.startswith("adapter/")}
    for name, hash in outputs.items():
        if not (run_dir / name).is_file() or sha256_file(run_dir / name) != hash:
            raise DataError(f"{run_dir / name}: not what the run trained; run its recipe again to train it anew")
    progress(0, 0, "preparing")
    model_dir = models.resolve(recipe.student.model, say=lambda line: progress(0, 0, line))
    served = has_adapters(model_dir)
    if to == "adapter" and not served:
        raise RecipeError(f"--to adapter: vLLM serves no adapters on {recipe.student.model}; use --to merged")
    tokenizer = load_tokenizer(model_dir)
    is_full = recipe.student.method == "full"
    with whole_folder(folder) as work:
        progress(0, 0, f"writing the {'weights' if to == 'merged' else 'adapter'}")
        if to == "adapter" or is_full:
            shutil.copytree(adapter, work, dirs_exist_ok=True)
        else:
            student.merge(model_dir, adapter, work, base)
        if to == "merged":
            _end_turns(work, end_of_turn_id(tokenizer))
        else:
            settings = read_json(work / "adapter_config.json")
            write_json(
                work / "adapter_config.json",
                settings | {"base_model_name_or_path": upstream(recipe.student.model)},  # no path of this machine
            )
        engines, options = Engines(machine), recipe.evaluate.engine
        evaluation = Evaluation(recipe, store, model_dir, progress)
        asked = evaluation.test[:problems]

        def items(who: Student, what: str) -> list[dict[str, Any]]:
            return evaluation.items(who, recipe.student.prompt, asked, what)

        weights_hash, adapter_hash = trained["weights_hash"], sha256_json(outputs)
        as_evaluated = Student(weights_hash, adapter_hash, _stored)
        # On a CPU the run evaluated merged weights, so that its answers are not those of the served adapter.
        as_served = Student(weights_hash, f"{adapter_hash}, served", lambda: engines.start(model_dir, options, adapter))
        try:
            if to == "adapter":
                exported = Student(
                    weights_hash, f"{adapter_hash}, served", lambda: engines.start(model_dir, options, work)
                )
                parity = compare(EVALUATED, items(as_evaluated, "as evaluated"), items(exported, "exported"))
            else:
                reference, name = (as_evaluated, EVALUATED) if is_full or not served else (as_served, SERVED)
                exported = Student(models.weights_hash(work), None, lambda: engines.start(work, options))
                parity = compare(name, items(reference, "adapter"), items(exported, "exported"))
        finally:
            engines.close()
        record = {
            "run": recipe.name,
            "to": to,
            "base": base if to == "merged" and not is_full else None,
            "serve": serve_line(recipe, to, folder, model_dir, adapter),
            "parity": parity,
        }
        prompt = recipe.prompts[recipe.student.prompt]
        solved = tasks.examples(recipe.task, prompt.examples)
        shown = render(prompt, "<question>", solved, ANSWER_FORMS[asked[0].answer_kind])
        write_atomic(work / "README.md", model_card(recipe, result, record, shown))
        shutil.copy(run_dir / "recipe.yaml", work / "recipe.yaml")
        # Without the line: it names folders of this machine, and what is in here may go anywhere.
        write_json(work / RECORD, {key: value for key, value in record.items() if key != "serve"})
    return record


def compare(name: str, reference: Sequence[Mapping[str, Any]], exported: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How two students answered the same problems. `differing` are those whose outcome or answer is not the same; a
    text may differ before its answer, where two tokens were all but equally likely."""
    pairs = list(zip(reference, exported, strict=True))
    differing = [(a, b) for a, b in pairs if (a["outcome"], a["extracted"]) != (b["outcome"], b["extracted"])]
    return {
        "reference": name,
        "n": len(pairs),
        "same_answer": len(pairs) - len(differing),
        "same_text": sum(a["text"] == b["text"] for a, b in pairs),
        "accuracy_reference": summary(list(map(dict, reference)))["accuracy"],
        "accuracy_exported": summary(list(map(dict, exported)))["accuracy"],
        "differing": [
            {
                "problem_id": a["problem_id"],
                "target": a["target"],
                **{
                    f"{key}_{which}": row[key]
                    for which, row in (("reference", a), ("exported", b))
                    for key in ("outcome", "extracted", "text")
                },
            }
            for a, b in differing
        ],
    }


def lines(record: Mapping[str, Any]) -> Iterator[str]:
    """What the command says of a finished export."""
    parity = record["parity"]
    same, n = parity["same_answer"], parity["n"]
    yield f"{record['folder']}: {BASES[record['base']] if record['to'] == 'merged' else 'the adapter'}"
    yield (
        f"parity with {parity['reference']}: {same} of {n} answers the same ({parity['same_text']} texts), accuracy "
        f"{parity['accuracy_reference']:.1%} there, {parity['accuracy_exported']:.1%} here"
    )
    for row in parity["differing"]:
        yield (
            f"  {row['problem_id']}: {row['extracted_reference']} ({row['outcome_reference']}) there, "
            f"{row['extracted_exported']} ({row['outcome_exported']}) here; gold answer {row['target']}"
        )
    yield f"serve it with\n  {record['serve']}"


def serve_line(recipe: Recipe, to: Target, folder: Path, model_dir: Path, adapter: Path) -> str:
    """What to paste into a shell."""
    limit = ["--max-model-len", str(recipe.evaluate.engine.max_model_len)]
    if to == "merged":
        return shlex.join(["vllm", "serve", str(folder), "--served-model-name", recipe.name, *limit])
    rank = lora_rank_limit(adapter_rank(read_json(adapter / "adapter_config.json")))
    lora = ["--enable-lora", "--max-lora-rank", str(rank), "--lora-modules", f"{recipe.name}={folder}"]
    return shlex.join(["vllm", "serve", str(model_dir), *lora, *limit])


def _stored() -> Engine:
    raise DataError("the sample store lacks what the run evaluated; run its recipe again to evaluate it anew")


def _end_turns(folder: Path, end_of_turn: int) -> None:
    """Servers end an answer at generation_config's eos tokens: the one that the student learnt must be among them."""
    path = folder / "generation_config.json"
    config = read_json(path) if path.exists() else {}
    known = config.get("eos_token_id")
    ends = [known] if isinstance(known, int) else list(known or [])
    write_json(path, config | {"eos_token_id": ends if end_of_turn in ends else [*ends, end_of_turn]})
