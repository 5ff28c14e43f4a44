"""What a `lora:` block asks for beyond PEFT's LoraConfig: LoRA+ (arXiv 2402.12354) and EVA (arXiv 2410.07170)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fcot_lite.errors import RecipeError
from fcot_lite.rows import IGNORED, Collate, TokenRow

LORAPLUS = (
    "loraplus_lr_ratio"  # PEFT's own name, of an argument to its optimiser; here beside the adapter's other options
)

EVA_ROWS = 8  # a batch has as many, or more where they are short
EVA_BATCHES = 500  # PEFT goes round the batches until each layer's directions stand still, and be it for ever
MOST_RANK = 512  # that vLLM serves


def loraplus_optimizer(trainer: Any, ratio: float) -> Any:
    """The trainer's own optimiser, with `ratio` times the learning rate for the B matrices of the adapter."""
    from peft.optimizers import create_loraplus_optimizer

    optimizer, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    return create_loraplus_optimizer(
        trainer.model,
        optimizer,
        loraplus_lr_ratio=ratio,
        loraplus_weight_decay=trainer.args.weight_decay,
        **options,
    )


def with_eva(model: Any, config: Any, rows: Sequence[TokenRow], collate: Collate) -> Any:
    """The model with an adapter that starts in the directions in which what the layers are fed varies most, on the
    tokens that are learnt, and has more of its ranks where more varies: up to `rho` times r in a layer.

    `collate` makes batches as training does. Raises RecipeError where the rows do not tell enough.
    """
    from peft import get_peft_model
    from peft.tuners.lora.config import EvaConfig
    from peft.tuners.lora.eva import initialize_lora_eva_weights

    config.eva_config = EvaConfig(rho=min(2.0, max(1.0, MOST_RANK / config.r)))  # 2 is PEFT's own
    adapted = get_peft_model(model, config)
    batches = _EvaBatches(rows, round(config.r * config.eva_config.rho), collate)

    def forward(adapted: Any, batch: Mapping[str, Any]) -> Any:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return adapted(**inputs, use_cache=False, logits_to_keep=1)

    initialize_lora_eva_weights(adapted, batches, forward_fn=forward, show_progress_bar=False)
    return adapted


class _EvaBatches:
    """Batches of the rows in their order, each with at least `tokens` that are learnt, over and over; at most
    EVA_BATCHES, after which iterating raises."""

    def __init__(self, rows: Sequence[TokenRow], tokens: int, collate: Collate) -> None:
        self._collate = collate
        self._batches: list[list[TokenRow]] = [[]]
        learnt = 0
        for row in rows:
            if learnt >= tokens and len(self._batches[-1]) >= EVA_ROWS:
                self._batches.append([])
                learnt = 0
            self._batches[-1].append(row)
            learnt += sum(label != IGNORED for label in row.labels)
        if learnt < tokens and len(self._batches) > 1:
            self._batches[-2:] = [self._batches[-2] + self._batches[-1]]
        elif learnt < tokens:
            raise RecipeError(
                f"student.lora.init_lora_weights: eva looks for {tokens} directions, but the {len(rows)} rows have "
                f"{learnt} tokens that are learnt; take a smaller student.lora.r, or true"
            )

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for number in range(EVA_BATCHES):
            rows = self._batches[number % len(self._batches)]
            yield self._collate([{"input_ids": row.input_ids, "labels": row.labels} for row in rows])
        raise RecipeError(
            f"student.lora.init_lora_weights: eva has not settled after {EVA_BATCHES} batches; take a smaller "
            "student.lora.r, or true"
        )
