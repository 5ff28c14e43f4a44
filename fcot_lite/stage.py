"""One stage in a process of its own: `python -m fcot_lite.stage NAME RUN_DIR`.

Exiting is the one sure way to give memory back, and one stage's crash can't hurt another. Reads the run's
recipe.yaml, writes its files and, last, its outcome as stages/NAME.json; says how it goes through the progress pipe.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby, tee
from operator import itemgetter
from pathlib import Path
from typing import Any

from fcot_lite import models, report, tasks, training_preflight
from fcot_lite.answers import accepted
from fcot_lite.engines import Engine
from fcot_lite.engines.lifeline import LIFELINE, follow_parent
from fcot_lite.engines.memory import LOWER_MEMORY, ran_out_of_memory
from fcot_lite.engines.vllm import Engines, serves_adapters
from fcot_lite.errors import INTERRUPTED, DataError, EngineError, FcotError, RecipeError, ResourceError
from fcot_lite.files import (
    disk_fault,
    iterate_jsonl,
    read_json,
    read_jsonl,
    sha256_file,
    sha256_json,
    whole_folder,
    write_json,
    write_jsonl,
)
from fcot_lite.machine import Machine, detect
from fcot_lite.progress import Reporter, reporter
from fcot_lite.prompts import load_tokenizer
from fcot_lite.recipe import STORE, ImportBlock, Recipe, StudentBlock, load
from fcot_lite.records import Problem, Sample, Verdict
from fcot_lite.rows import messages, prompt_and_completion, show
from fcot_lite.store import SampleStore, Use
from fcot_lite.teacher import Question, draw, drawn_samples, novelty, open_campaign, questions, rendered
from fcot_lite.verdicts import Judge, judging

FIRST_PROMPTS = 3
ACCOUNT = "FCOT_ACCOUNT"
# In the run's folder: the trained student, where it is chosen the student by epoch, and until training is done, ...
ADAPTER, EPOCHS, CHECKPOINTS = "adapter", "epochs", "checkpoints"
# No hub: every model is a directory by the time a stage starts, and a retry without a network costs minutes.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True, slots=True)
class Context:
    recipe: Recipe
    run_dir: Path
    machine: Machine
    progress: Reporter
    account: str = ""  # what this stage generates, over all its attempts, is booked on it
    request: Mapping[str, Any] = field(default_factory=dict)  # what a job was asked for beside the run

    def store(self) -> SampleStore:
        """`runs/samples.sqlite`: beside the runs, shared by them."""
        return SampleStore(
            self.run_dir.parent / STORE, self.account, waiting=lambda holder: self.progress(0, 0, f"waiting: {holder}")
        )

    def model(self, name: str) -> Path:
        return models.resolve(name, say=lambda line: self.progress(0, 0, line))


def sample(context: Context) -> dict[str, Any]:
    from fcot_lite import stats
    from fcot_lite.curate import rationale, reasoning_fault

    recipe, teacher, task = context.recipe, context.recipe.teacher, context.recipe.task
    if isinstance(teacher, ImportBlock):
        return _import(context, teacher)
    context.progress(0, 0, "preparing")
    model_dir = context.model(teacher.model)
    tokenizer = load_tokenizer(model_dir)
    prompt = recipe.prompts[teacher.prompt]
    problems = tasks.problems(task, "train")
    bad_rows = tasks.bad_rows(task)
    if bad_rows:
        write_json(context.run_dir / "bad_rows.json", [asdict(row) for row in bad_rows])
    chats = rendered(task, prompt, problems)
    asked = questions(tokenizer, problems, chats, teacher.sampling, teacher.engine, prompt.answer_trigger)
    _check_student(context, problems[:FIRST_PROMPTS])  # before the teacher's hours, not after them
    weights_hash = models.weights_hash(model_dir)
    with context.store() as store:
        campaign = open_campaign(
            store,
            weights_hash=weights_hash,
            prompt=prompt,
            sampling=teacher.sampling,
            engine=teacher.engine,
            tokenizer=tokenizer,
            use=Use("teacher", teacher.model, task.label, teacher.prompt, recipe.cost.usd_per_hour),
        )
        if line := novelty(store, campaign, asked):
            context.progress.say(f"sample: {line}")
        engines = Engines(context.machine)
        with judging(store, campaign.hash, prompt) as arriving:

            def teaches(question: Question, sample: Sample) -> bool:
                (verdict,) = arriving.verdicts(question, [sample])
                right, check = accepted(sample.finish_reason, verdict), recipe.curate.check
                if not right or check == "off":
                    return right
                return reasoning_fault(check, rationale(prompt, sample, question.problem), question.problem) is None

            while True:
                try:
                    drawn = draw(
                        store,
                        campaign,
                        asked,
                        teacher.policy,
                        accepted=teaches,
                        start_engine=lambda: engines.start(model_dir, teacher.engine),
                        max_num_seqs=teacher.engine.max_num_seqs,
                        progress=context.progress,
                        usd_per_hour=recipe.cost.usd_per_hour,
                    )
                finally:
                    engines.close()
                arriving.flush()
                context.progress(0, 0, "grading")
                tally = _Tally()
                with judging(store, campaign.hash, prompt) as judge:
                    rows = _graded(asked, drawn_samples(store, campaign, asked, drawn), judge, tally)
                    write_jsonl(context.run_dir / "samples.jsonl", rows)
                if tally.samples == sum(drawn.prefixes):
                    break  # else some were damaged, which reading them showed: they were set aside, so draw them again
        spent = store.spent()
    if tally.unfinished:
        context.progress.say(f"sample: {report.unfinished(tally.unfinished, tally.samples)}")
    new = min(tally.samples, spent.num_samples)  # what an early stop leaves unused is new too
    return {
        "model": teacher.model,
        "weights_hash": weights_hash,
        "campaign": campaign.hash,
        "policy": str(teacher.policy),
        "samples": tally.samples,
        "samples_new": new,
        "samples_reused": tally.samples - new,
        "samples_unfinished": tally.unfinished,
        "pass_rate": tally.correct / tally.samples,
        "pass_rate_ci95": list(stats.clustered_wilson(tally.by_problem)),
        "graded": _graded_counts(arriving.counts, judge.counts),
        "coverage": sum(right > 0 for right, _ in tally.by_problem) / len(tally.by_problem),
        "num_tokens": tally.num_tokens,
        "num_tokens_cancelled": spent.num_tokens_cancelled,
        "num_tokens_generated": spent.num_tokens + spent.num_tokens_cancelled,
        "problems_sha256": problems_hash(problems),
        "answer_kind": problems[0].answer_kind,
        "bad_rows": dict(Counter(row.reason for row in bad_rows)),
        "tokens_per_accepted": tally.num_tokens / tally.correct if tally.correct else None,
        "tokens_per_second": drawn.num_tokens_new / drawn.wall_seconds if drawn.new else None,
        "outputs": _hashes(context.run_dir, ["samples.jsonl"]),
    }


def _import(context: Context, block: ImportBlock) -> dict[str, Any]:
    """The sample stage where the rationales are there already."""
    from fcot_lite import imported

    context.progress(0, 0, "preparing")
    problems = tasks.problems(context.recipe.task, "train")
    bad_rows = tasks.bad_rows(context.recipe.task)
    if bad_rows:
        write_json(context.run_dir / "bad_rows.json", [asdict(row) for row in bad_rows])
    _check_student(context, problems[:FIRST_PROMPTS])
    with context.store() as store:
        outcome = imported.sample(context.recipe, block, context.run_dir, store, problems, context.progress)
    return {
        **outcome,
        "problems_sha256": problems_hash(problems),
        "answer_kind": problems[0].answer_kind,
        "bad_rows": dict(Counter(row.reason for row in bad_rows)),
        "outputs": _hashes(context.run_dir, ["samples.jsonl"]),
    }


@dataclass(slots=True)
class _Tally:
    """What passed by on its way into samples.jsonl. `by_problem` has (correct, samples)."""

    by_problem: list[tuple[int, int]] = field(default_factory=list)
    samples: int = 0
    correct: int = 0
    unfinished: int = 0
    num_tokens: int = 0


def _graded(
    asked: Sequence[Question], samples: Iterable[Sequence[Sample]], judge: Judge, tally: _Tally
) -> Iterator[dict[str, Any]]:
    """The rows of samples.jsonl, one question in memory at a time."""
    for question, drawn in zip(asked, samples, strict=True):
        verdicts = judge.verdicts(question, drawn)
        correct = sum(verdict.correct for verdict in verdicts)
        tally.by_problem.append((correct, len(drawn)))
        tally.samples += len(drawn)
        tally.correct += correct
        tally.unfinished += sum(sample.finish_reason == "length" for sample in drawn)
        tally.num_tokens += sum(sample.num_tokens for sample in drawn)
        for sample, verdict in zip(drawn, verdicts, strict=True):
            yield {**asdict(sample), "verdict": asdict(verdict)}


def _graded_counts(arriving: Mapping[str, int], used: Mapping[str, int]) -> dict[str, int]:
    """Of the verdicts on what is used, those given now and before. They were given as the samples arrived, so that at
    the end they are all there, but for those that could not be judged and were asked for once more."""
    given = {name: arriving[name] + used[name] for name in ("new", "regraded", "changed")}
    given["new"] -= arriving["not_judged"]
    return {**used, **given, "reused": max(0, used["new"] + used["reused"] - given["new"])}


def _check_student(context: Context, problems: Sequence[Problem]) -> None:
    """Raises DataError where the student can't be trained here, or where its prompts can't be rendered or leave no
    room, by the first problems."""
    recipe = context.recipe
    model_dir = context.model(recipe.student.model)
    training_preflight.refuse(training_preflight.of_model(model_dir))
    tokenizer = load_tokenizer(model_dir)
    for name in recipe.evaluate.before:
        prompt = recipe.prompts[name]
        chats = rendered(recipe.task, prompt, problems)
        asked = questions(
            tokenizer, problems, chats, recipe.evaluate.sampling, recipe.evaluate.engine, prompt.answer_trigger
        )
        longest = max(len(question.prompt_token_ids) for question in asked)
        if name == recipe.student.prompt and longest >= recipe.curate.max_length:
            raise RecipeError(
                f"curate.max_length: {recipe.curate.max_length} leaves no room for a rationale; the student's prompt "
                f"alone has {longest} tokens"
            )


def problems_hash(problems: Sequence[Problem]) -> str:
    """Of what was asked: ids, questions and gold answers."""
    return sha256_json([[problem.id, problem.question, problem.target] for problem in problems])


def curate(context: Context) -> dict[str, Any]:
    from fcot_lite.curate import curate

    recipe, task = context.recipe, context.recipe.task
    context.progress(0, 0, "curating")
    problems = tasks.problems(task, "train")
    test = tasks.whole_test(task)
    sampled, judged = tee(_by_problem(context.run_dir / "samples.jsonl", problems))
    prompt = recipe.prompts[recipe.student.prompt]
    tokenizer = load_tokenizer(context.model(recipe.student.model))
    curated = curate(
        problems,
        ([Sample(**{key: row[key] for key in row if key != "verdict"}) for row in rows] for rows in sampled),
        ([Verdict(**row["verdict"]) for row in rows] for rows in judged),
        rendered(task, prompt, problems),
        tokenizer,
        recipe.curate,
        teacher_prompt=recipe.teacher_prompt,
        student_prompt=prompt,
        test=test,
        seed=recipe.seed,
    )
    for name, form in (("train.jsonl", prompt_and_completion), ("messages.jsonl", messages)):
        write_jsonl(context.run_dir / name, map(form, curated.examples))
    figures = {
        "input": curated.input,
        "kept": len(curated.examples),
        "dropped": curated.counts(),
        "contamination": asdict(curated.contamination),
    }
    write_json(context.run_dir / "curation.json", {**figures, "rows": [asdict(row) for row in curated.dropped]})
    return {**figures, "outputs": _hashes(context.run_dir, ["train.jsonl", "messages.jsonl", "curation.json"])}


def _by_problem(path: Path, problems: Sequence[Problem]) -> Iterator[list[dict[str, Any]]]:
    """For each problem its rows of samples.jsonl, where they stand in the order of the problems; one problem in memory
    at a time."""
    groups = groupby(iterate_jsonl(path), key=itemgetter("problem_id"))
    group = next(groups, None)
    for problem in problems:
        if group is not None and group[0] == problem.id:
            yield list(group[1])
            group = next(groups, None)
        else:
            yield []
    if group is not None:
        raise DataError(f"{path}: {group[0]} is none of the problems, or not where it should be; run with --force")


def train(context: Context) -> dict[str, Any]:
    from fcot_lite import fitting, student

    recipe = context.recipe
    context.progress(0, 0, "preparing")
    examples = read_jsonl(context.run_dir / "train.jsonl")
    if not examples:
        raise DataError(
            "no rationale survived curation, so there is nothing to train on; see curation.json for the reasons, "
            "and raise teacher.n, choose a stronger teacher.model or an easier task"
        )
    model_dir = context.model(recipe.student.model)
    rows = training_preflight.ready(recipe, model_dir, examples)
    print(f"The first of {len(rows)} training rows, {show(load_tokenizer(model_dir), rows[0])}", flush=True)
    every_epoch = recipe.student.select != "last"
    epochs_dir = context.run_dir / EPOCHS

    def attempt(block: StudentBlock) -> student.TrainOutcome:
        return student.train(
            model_dir,
            rows,
            method=block.method,
            lora=block.lora,
            sft=block.sft,
            seed=recipe.seed,
            machine=context.machine,
            output_dir=context.run_dir / ADAPTER,  # an earlier one stays until the new one is whole
            checkpoints_dir=context.run_dir / CHECKPOINTS,
            epochs_dir=epochs_dir if every_epoch else None,
            progress=context.progress,
            say=context.progress.say,
        )

    outcome, trained = fitting.fit(recipe, model_dir, context.machine, attempt, context.progress.say)
    for other in epochs_dir.glob("*"):
        if other.name not in outcome.epochs:  # of an earlier recipe
            shutil.rmtree(other)
    return {
        "model": recipe.student.model,
        "method": recipe.student.method,
        "weights_hash": models.weights_hash(model_dir),
        "rows": len(rows),
        **asdict(outcome),
        **fitting.batch(trained.sft),
        "depends_on": student.depends_on(context.machine),
        # Where evaluation chooses among the epochs, it is evaluation that says what `adapter` is.
        "outputs": _hashes(context.run_dir, _files(context.run_dir, EPOCHS if every_epoch else ADAPTER)),
    }


def evaluate(context: Context) -> dict[str, Any]:
    from fcot_lite import student
    from fcot_lite.evaluate import Student, evaluate

    recipe, run_dir = context.recipe, context.run_dir
    context.progress(0, 0, "preparing")
    adapter = run_dir / ADAPTER
    model_dir = context.model(recipe.student.model)
    weights_hash = models.weights_hash(model_dir)
    trained = read_json(run_dir / "stages" / "train.json")
    if weights_hash != trained["weights_hash"]:
        raise DataError(
            f"{recipe.student.model}: other weights than the student was trained from; run with --force to train again"
        )
    folders = {name: run_dir / EPOCHS / name for name in trained["epochs"]} or {"last": adapter}
    merged = run_dir / ".merged"  # a copy of the whole model that only this stage needs
    engines = Engines(context.machine)
    on_adapter = recipe.student.method != "full" and serves_adapters(model_dir, context.machine)

    def before() -> Engine:
        # On a GPU one engine serves the student with and without its adapter.
        return engines.start(model_dir, recipe.evaluate.engine, next(iter(folders.values())) if on_adapter else None)

    def after(folder: Path) -> Engine:
        if on_adapter:
            return engines.start(model_dir, recipe.evaluate.engine, folder)
        if recipe.student.method == "full":
            return engines.start(folder, recipe.evaluate.engine)
        engines.close()  # its memory first
        context.progress(0, 0, "merging the adapter")
        student.merge(model_dir, folder, merged)
        return engines.start(merged, recipe.evaluate.engine)

    try:
        with context.store() as store:
            outcome = evaluate(
                recipe,
                store,
                model_dir,
                Student(weights_hash, None, before),
                {
                    name: Student(
                        weights_hash, _adapter_hash(trained["outputs"], run_dir, folder), partial(after, folder)
                    )
                    for name, folder in folders.items()
                },
                run_dir / "eval",
                context.progress,
            )
            spent = store.spent()
    finally:
        engines.close()
        shutil.rmtree(merged, ignore_errors=True)
    chosen = []
    if recipe.student.select != "last":
        with whole_folder(adapter) as folder:
            shutil.copytree(folders[outcome["selection"]["picked"]], folder, dirs_exist_ok=True)
        chosen = _files(run_dir, ADAPTER)
    if recipe.student.method == "full":
        outcome["served"] = "fine-tuned weights"
    else:
        outcome["served"] = "adapter on the unquantised base" if on_adapter else "merged into the unquantised base"
    outcome["num_tokens_generated"] = spent.num_tokens + spent.num_tokens_cancelled
    outcome["outputs"] = _hashes(run_dir, [*_files(run_dir, "eval"), *chosen])
    return outcome


def _adapter_hash(outputs: Mapping[str, str], run_dir: Path, folder: Path) -> str:
    """Of what training wrote into `folder`."""
    inside = f"{folder.relative_to(run_dir)}/"
    written = {name.removeprefix(inside): sha256 for name, sha256 in outputs.items() if name.startswith(inside)}
    return sha256_json({f"{ADAPTER}/{name}": sha256 for name, sha256 in written.items()})


def export(context: Context) -> dict[str, Any]:
    from fcot_lite.export import export

    request = context.request
    with context.store() as store:
        return export(
            context.recipe,
            context.run_dir,
            report.read(context.run_dir / "result.json"),
            store,
            context.machine,
            context.progress,
            to=request["to"],
            base=request["base"],
            folder=Path(request["folder"]),
            problems=request["problems"],
        )


STAGES: dict[str, Callable[[Context], dict[str, Any]]] = {
    "sample": sample,
    "curate": curate,
    "train": train,
    "evaluate": evaluate,
}
JOBS = STAGES | {"export": export}  # what runs as a stage does, and is none of a run's


def _files(run_dir: Path, folder: str) -> list[str]:
    return sorted(str(path.relative_to(run_dir)) for path in (run_dir / folder).rglob("*") if path.is_file())


def _hashes(run_dir: Path, names: list[str]) -> dict[str, str]:
    """Hashes of what the stage wrote, by path relative to the run: the stage counts as done while they hold."""
    return {name: sha256_file(run_dir / name) for name in names}


def main() -> None:
    name, run_dir, account = sys.argv[1], Path(sys.argv[2]), os.environ.get(ACCOUNT, "")
    request = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    follow_parent()
    if os.environ.get(LIFELINE, str(os.getppid())) != str(os.getppid()):
        sys.exit(INTERRUPTED)  # the run was killed while this process was starting
    machine = detect()
    os.environ.update(ENVIRONMENT | {"OMP_NUM_THREADS": str(len(machine.cpus))})
    # A parent started in the background may have left SIGINT ignored; SIGTERM stops as cleanly as Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    progress = reporter()
    try:
        context = Context(load(run_dir / "recipe.yaml"), run_dir, machine, progress, account, request)
        write_json(run_dir / "stages" / f"{name}.json", JOBS[name](context))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last line of defence: the parent shows it, the log has the traceback
        fault = _fault(error)
        progress.fail(str(fault))
        with suppress(OSError):  # the full disk may be the log's
            traceback.print_exc()
        sys.exit(fault.exit_code)


def _fault(error: Exception) -> FcotError:
    """What a user is told of it."""
    if isinstance(error, FcotError):
        return error
    if isinstance(error, MemoryError) or ran_out_of_memory(str(error)):
        return ResourceError(f"out of memory ({type(error).__name__}: {error}); {LOWER_MEMORY}")
    if isinstance(error, OSError) and (fault := disk_fault(error)) is not None:
        return fault
    return EngineError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
