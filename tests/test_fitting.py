"""Out of memory in training: named as such, with what to change; or smaller micro-batches and the same result."""
# ruff: noqa: E402

import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from test_checkpoints import ONE_CORE, SFT, forked, straight
from test_evaluate import RECIPE
from test_student import ROWS, model_dir, row, train  # noqa: F401
from trl import SFTConfig

from fcot_lite import checkpoints, fitting, labelled_head
from fcot_lite.errors import ResourceError
from fcot_lite.out_of_memory import OutOfMemory, named_out_of_memory
from fcot_lite.recipe import StudentBlock
from fcot_lite.student import TrainOutcome

pytestmark = pytest.mark.real

STUDENT = "starter:smollm2-135m-instruct"


def fit(
    train: Callable[[StudentBlock], Any],
    model_dir: Path,  # noqa: F811
    say: Callable[[str], None] = print,
    **student: Any,
) -> Any:
    block = StudentBlock(**({"model": STUDENT, "prompt": "plain", "sft": SFT} | student))
    return fitting.fit(RECIPE.model_copy(update={"student": block}), model_dir, ONE_CORE, train, say)


@pytest.mark.parametrize(
    ("sft", "micro", "steps"),
    [
        ({}, 4, 2),
        ({"per_device_train_batch_size": 6, "gradient_accumulation_steps": 3}, 3, 6),
        ({"per_device_train_batch_size": 9}, 3, 3),
        ({"per_device_train_batch_size": 7}, 1, 7),
        ({"per_device_train_batch_size": 2, "learning_rate": 1.0}, 1, 2),
    ],
)
def test_half_the_micro_batch_and_the_same_batch(sft: dict[str, Any], micro: int, steps: int) -> None:
    halved = fitting.halved(sft)
    assert halved is not None
    assert halved == {**sft, "per_device_train_batch_size": micro, "gradient_accumulation_steps": steps}


def test_one_row_is_not_halved() -> None:
    assert fitting.halved({"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}) is None


def test_the_defaults_are_trls() -> None:
    config = SFTConfig(use_cpu=True)
    assert {name: getattr(config, name) for name in fitting.DEFAULTS} == fitting.DEFAULTS


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_every_way_of_saying_it_has_one_name(error: Exception) -> None:
    with pytest.raises(OutOfMemory) as caught, named_out_of_memory():
        raise error
    assert "\n" not in str(caught.value)
    assert str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), OSError(28, "No space left on device")])
def test_another_error_keeps_its_name(error: Exception) -> None:
    with pytest.raises(type(error)), named_out_of_memory():
        raise error


def test_without_auto_batch_it_says_what_to_change(model_dir: Path) -> None:  # noqa: F811
    def fails(_: StudentBlock) -> TrainOutcome:
        raise OutOfMemory("CUDA out of memory")

    with pytest.raises(ResourceError) as caught:
        fit(fails, model_dir)
    assert not isinstance(caught.value, OutOfMemory)
    said, *changes = str(caught.value).splitlines()
    gib = r"\d+\.\d GiB"
    assert re.fullmatch(
        rf"memory ran out in training \(CUDA out of memory\): the estimate was {gib}, {gib} of memory were free\. "
        r"Change one of:",
        said,
    )
    for change, overrides in zip(
        changes,
        (
            rf"student\.sft\.{fitting.MICRO_BATCH}=2 student\.sft\.{fitting.STEPS}=2   \(about {gib}\)",
            rf"student\.sft\.gradient_checkpointing=true   \(about {gib}\)",
            rf"student\.method=qlora   \(about {gib}\)",
            r"or let student\.auto_batch=true find the micro-batch that fits",
        ),
        strict=True,
    ):
        assert re.fullmatch(f"  {overrides}", change)


def test_with_auto_batch_it_ends_at_one_row(model_dir: Path) -> None:  # noqa: F811
    tried, said = [], []

    def fails(block: StudentBlock) -> TrainOutcome:
        tried.append(tuple(fitting.batch(block.sft).values()))
        raise OutOfMemory("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(ResourceError, match="Change one of") as caught:
        fit(fails, model_dir, said.append, auto_batch=True, sft=SFT | {"gradient_checkpointing": True})
    assert tried == [(4, 1), (2, 2), (1, 4)]
    assert said[0] == (
        "memory ran out: going on with 2 rows at once, 2 times a step (student.auto_batch; the batch stays 4)"
    )
    changes = str(caught.value).splitlines()[1:]
    assert len(changes) == 3
    assert [change.split("=")[0].strip() for change in changes[:2]] == ["student.method", "curate.max_length"]


def test_it_goes_on_from_its_checkpoint_with_the_same_batch(
    model_dir: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory runs out in step 5, with more than two rows at once."""
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0)
    monkeypatch.setattr(checkpoints, "MOST_OF_THE_TIME", 1e9)

    def rows_of(inputs: Any) -> list[list[int]]:
        """The rows of a batch without padding, which begin where positions do."""
        starts = (inputs["position_ids"][0] == 0).nonzero()[:, 0].tolist()
        ids = inputs["input_ids"][0].tolist()
        return [ids[start:end] for start, end in zip(starts, [*starts[1:], len(ids)], strict=True)]

    make_trainer = labelled_head.sft_trainer
    learnt: dict[int, list[list[int]]] = {}

    def small_card(**arguments: Any) -> Any:
        trainer = make_trainer(**arguments)
        step = trainer.training_step

        def training_step(model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            rows = rows_of(inputs)
            if trainer.state.global_step == 4 and len(rows) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            learnt.setdefault(trainer.state.global_step, []).extend(rows)
            return step(model, inputs, *rest, **named)

        trainer.training_step = training_step
        return trainer

    monkeypatch.setattr(labelled_head, "sft_trainer", small_card)
    arguments = {"machine": ONE_CORE, "lora": {"r": 4}}
    whole = train(model_dir, tmp_path / "straight", sft=SFT | {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}, **arguments)  # fmt: skip  # noqa: E501
    expected, learnt = learnt, {}
    outcome, block = fit(
        lambda block: train(model_dir, tmp_path, sft=block.sft, **arguments), model_dir, auto_batch=True
    )
    assert outcome.resumed_at == 4
    assert fitting.batch(block.sft) == {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    assert outcome.num_tokens == whole.num_tokens
    assert [loss for _, loss in outcome.losses] == pytest.approx([loss for _, loss in whole.losses], abs=0.02)

    assert {step: sorted(rows) for step, rows in learnt.items()} == {
        step: sorted(rows) for step, rows in expected.items()
    }
    assert sum(map(len, learnt.values())) == 3 * len(ROWS)


def test_a_real_limit_of_memory(model_dir: Path, tmp_path: Path) -> None:  # noqa: F811
    """2,048 rows at once in a process that may take 64 MiB more than it has."""
    straight(model_dir, tmp_path)  # whatever the libraries take once
    many = [row(30, 30, key) for key in range(64)] * 32

    def limited() -> None:
        taken = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (taken + 64 * 2**20, resource.RLIM_INFINITY))
        sft = SFT | {"per_device_train_batch_size": len(many)}
        try:
            fit(lambda _: train(model_dir, tmp_path, train_rows=many, sft=sft, machine=ONE_CORE), model_dir)
        except ResourceError as error:
            (tmp_path / "said").write_text(str(error))

    assert forked(limited) == 0
    said = (tmp_path / "said").read_text()
    assert said.startswith("memory ran out in training (")
    assert "can't allocate memory" in said
    assert "and ulimit -v allows" in said
    assert len(said.splitlines()) == 5
