"""The 135M student, trained in fresh processes on all cores: killed at random moments, and twice without."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
KILLS = 8
# Checkpoints every two seconds; prints a line when the first step is done, and the losses at the end.
CHILD = """
import json, sys
from pathlib import Path
from transformers import AutoTokenizer
from fcot_lite import checkpoints, models, student, tasks
from fcot_lite.machine import detect
from fcot_lite.rows import TokenRow

folder = Path(sys.argv[1])
checkpoints.SECONDS_BETWEEN = 2
checkpoints.MOST_OF_THE_TIME = 1
model_dir = models.resolve("starter:smollm2-135m-instruct", say=print)
tokenizer = AutoTokenizer.from_pretrained(model_dir)
rows = []
for problem in tasks.load("chain_arithmetic", "train", limit=40):
    prompt = tokenizer(f"<|im_start|>user\\n{problem.question}<|im_end|>\\n<|im_start|>assistant\\n").input_ids
    completion = tokenizer(f"The answer is {problem.target}.<|im_end|>").input_ids
    rows.append(TokenRow(prompt + completion, [-100] * len(prompt) + completion))
outcome = student.train(
    model_dir, rows, method=sys.argv[2], lora={"r": 8, "lora_dropout": 0.05} if sys.argv[2] != "full" else {},
    sft={"learning_rate": 5e-4, "num_train_epochs": 3, "per_device_train_batch_size": 4}, seed=3, machine=detect(),
    output_dir=folder / "adapter", checkpoints_dir=folder / "checkpoints",
    progress=lambda done, total, note: print(f"step {done}", flush=True) if done == 1 else None,
    say=lambda line: print(line, flush=True),
)
(folder / "outcome.json").write_text(json.dumps([outcome.losses, outcome.num_tokens, outcome.resumed_at]))
"""


def start(folder: Path, method: str, hash_seed: str) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": hash_seed}
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder), method], stdout=log, stderr=log, env=environment
        )


def weights(folder: Path) -> bytes:
    (file,) = (folder / "adapter").glob("*model.safetensors")
    return file.read_bytes()


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_two_processes_give_the_same_bytes_and_so_does_one_that_was_killed(method: str, tmp_path: Path) -> None:
    began = time.monotonic()
    for name, hash_seed in (("once", "1"), ("again", "2")):
        assert start(tmp_path / name, method, hash_seed).wait(900) == 0, (tmp_path / name / "log").read_text()[-2000:]
    seconds = (time.monotonic() - began) / 2
    losses, num_tokens, _ = json.loads((tmp_path / "once" / "outcome.json").read_text())
    assert len(losses) == 30
    assert weights(tmp_path / "once") == weights(tmp_path / "again")

    clock, kills, resumed = random.Random(method), 0, set()
    killed = tmp_path / "killed"
    while kills < KILLS:
        process = start(killed, method, "3")
        try:
            assert process.wait(clock.uniform(0.4, 1) * seconds) == 0, (killed / "log").read_text()[-2000:]
            resumed.add(json.loads((killed / "outcome.json").read_text())[2])
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert start(killed, method, "4").wait(900) == 0
    assert json.loads((killed / "outcome.json").read_text())[:2] == [losses, num_tokens]
    assert weights(killed) == weights(tmp_path / "once")
    print(f"{method}: {kills} kills, {(killed / 'log').read_text().count('goes on')} resumptions, the same bytes")
