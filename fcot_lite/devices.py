"""Cards by name: what a plan for a machine that is not here has to know of it."""

import difflib
from dataclasses import dataclass

from fcot_lite.errors import RecipeError
from fcot_lite.machine import Machine, detect


@dataclass(frozen=True, slots=True)
class Card:
    """`memory_gib` is what the driver reports; `tflops` are dense matrix products in 16 bits with float32 sums."""

    product: str
    memory_gib: float
    bandwidth_gb_per_second: float
    tflops: float
    watts: int
    compute_capability: tuple[int, int]
    source: str


SHEET = "NVIDIA's data sheet"
CARDS = {
    "rtx3060": Card("NVIDIA GeForce RTX 3060", 12.0, 360, 25, 170, (8, 6), SHEET),
    "rtx3090": Card("NVIDIA GeForce RTX 3090", 24.0, 936, 71, 350, (8, 6), SHEET),
    "rtx4060ti": Card("NVIDIA GeForce RTX 4060 Ti", 16.0, 288, 44, 165, (8, 9), SHEET),
    "rtx4070": Card("NVIDIA GeForce RTX 4070", 12.0, 504, 58, 200, (8, 9), SHEET),
    "rtx4090": Card("NVIDIA GeForce RTX 4090", 24.0, 1008, 165, 450, (8, 9), SHEET),
    "t4": Card("Tesla T4", 15.0, 320, 65, 70, (7, 5), SHEET),
    "a100-40": Card("NVIDIA A100-SXM4-40GB", 39.6, 1555, 312, 400, (8, 0), SHEET),
    "a100-80": Card("NVIDIA A100-SXM4-80GB", 79.3, 2039, 312, 400, (8, 0), SHEET),
    "h100-80": Card("NVIDIA H100 80GB HBM3", 79.6, 3350, 989, 700, (9, 0), SHEET),
}


def machine(name: str | None) -> Machine:
    """The machine with this card, or this machine's CPU for "cpu"; None: this machine as it is. Raises RecipeError for
    a name that is not in the table."""
    here = detect()
    if name is None:
        return here
    if name == "cpu":
        return Machine("cpu", here.cpus)
    if name not in CARDS:
        close = difflib.get_close_matches(name, CARDS, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise RecipeError(f"--device {name}: no such device.{hint} There are cpu, {', '.join(CARDS)}")
    card = CARDS[name]
    return Machine("cuda", here.cpus, card.product, card.memory_gib, card.compute_capability)


def of(machine: Machine) -> Card | None:
    """The card in `machine`, by its product's name; None on a CPU and for a card that is not in the table."""
    return next((card for card in CARDS.values() if machine.gpu_name == card.product), None)
