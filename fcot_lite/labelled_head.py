"""TRL's training step on the CPU, with a head that scores only the positions that carry a label.

TRL never holds all the logits, but off CUDA its fused head still scores every position, prompt and padding included,
and accumulates in float32. Here the head runs on `hidden[labels != -100]`, as TRL's own does on CUDA. The rest is
TRL's: what is replaced is the forward that `SFTTrainer.compute_loss` calls, and it returns TRL's own output type.
benchmarks/train_head.py measures the two side by side.
"""

import logging
import types
from functools import cache
from importlib.metadata import version
from typing import Any

logger = logging.getLogger(__name__)

TRL_VERSION = "1.16.0"  # whose `SFTTrainer.compute_loss` and `FusedCausalLMOutput` this was written against

# The types whose logits are `lm_head(backbone(...))` and nothing more: no soft cap, scale or router loss.
# tests/test_labelled_head.py holds each of them against TRL's own head; another type joins by joining the test.
MODEL_TYPES = ("gemma", "gemma3_text", "gpt2", "llama", "mistral", "phi3", "qwen2", "qwen3", "smollm3")

# Two sizes of bites. Each matrix product reads the whole head, so it takes many rows; the passes over their logits
# stay in the cache with few. 704 rows of 49,152 logits (forward and gradient, two AVX512-BF16 cores): 170 ms so, of
# which the products alone are 140; 255 ms with bites of 64 for both, 520 ms in one piece. It also bounds the memory:
# 256 rows in bfloat16 are 24 MiB here, 74 MiB for a vocabulary of 152,000.
ROWS_PER_PRODUCT = 256
ROWS_PER_SOFTMAX = 16


def why_not(model: Any) -> str | None:
    """None where the labelled-only head serves `model` (the one below any adapter), else the reason it does not."""
    if version("trl") != TRL_VERSION:
        return f"TRL {version('trl')} is installed, the labelled-only head is tested with {TRL_VERSION}"
    if model.device.type != "cpu":
        return f"on {model.device.type} TRL scores only the labelled positions by itself"
    if model.config.model_type not in MODEL_TYPES:
        return f"the labelled-only head is tested with {', '.join(MODEL_TYPES)}, not with {model.config.model_type}"
    if getattr(model.config, "final_logit_softcapping", None):
        return "the model caps its logits"
    if model.get_output_embeddings().bias is not None:
        return "the head has a bias"
    return None


def sft_trainer(**arguments: Any) -> Any:
    """TRL's `SFTTrainer(**arguments)`, with the labelled-only head where that serves, else with the reason logged."""
    return _trainer_class()(**arguments)


@cache
def _trainer_class() -> Any:
    from trl import SFTTrainer

    class LabelledHeadTrainer(SFTTrainer):  # type: ignore[misc]
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            model = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
            reason = why_not(model)
            if reason is None:
                rebind_forward(model)
            else:
                logger.info("Training with TRL's own head: %s.", reason)

    return LabelledHeadTrainer


def rebind_forward(model: Any) -> None:
    """Gives `model`, which has TRL's fused head, the labelled-only one for `model(..., labels, fused_lm_head=True)`."""
    from trl.trainer.utils import FusedCausalLMOutput

    trl_forward = model.forward
    log_probs_of = _labelled_log_probs().apply

    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return trl_forward(*args, labels=labels, **kwargs)
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        kwargs["use_cache"] = False
        hidden = self.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        next_tokens = labels[:, 1:]
        mask = next_tokens != -100
        head = self.get_output_embeddings()
        scores = log_probs_of(hidden[mask], head.weight, next_tokens[mask])
        # masked_scatter keeps a batch without labels connected to the model: its gradient is zero, not an error.
        log_probs, entropy, is_top1 = (score.new_zeros(mask.shape).masked_scatter(mask, score) for score in scores)
        num_tokens = mask.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        return FusedCausalLMOutput(
            loss=-log_probs.sum() / num_tokens,
            log_probs=log_probs,
            entropy=entropy,
            is_top1=is_top1,
            label_mask=mask,
        )

    forward.__wrapped__ = trl_forward  # type: ignore[attr-defined]  # `generate` validates against the model's signature
    model.forward = types.MethodType(forward, model)


@cache
def _labelled_log_probs() -> Any:
    import torch

    def score_(logits: Any, targets: Any, log_probs: Any, entropy: Any, is_top1: Any) -> None:
        """Fills the last three from the logits (rows, vocabulary), and these with onehot(target) - softmax."""
        exact, target = logits.float(), targets[:, None]
        top, top_id = exact.max(-1, keepdim=True)
        probs = (exact - top).exp_()
        total = probs.sum(-1, keepdim=True)
        probs /= total
        log_total = top + total.log()
        log_probs[:] = (exact.gather(-1, target) - log_total)[:, 0]
        entropy[:] = log_total[:, 0] - torch.linalg.vecdot(probs, exact)
        is_top1[:] = (top_id == target)[:, 0]
        logits.copy_(probs.neg_().scatter_add_(-1, target, torch.ones_like(top)))

    class LabelledLogProbs(torch.autograd.Function):  # type: ignore[misc]
        """Log-probability, entropy and top-1 hit of each target; the last two without gradient.

        The logits are in autocast's dtype and everything after them in float32. The gradient of one log-probability
        with respect to its logits is `onehot(target) - softmax(logits)`, known as soon as the logits are. So its
        product with the head is taken while they are in the cache, and the backward only scales rows. Where the head
        itself is trained, those differences are kept for it: 2 bytes per labelled logit in bfloat16.
        """

        @staticmethod
        def forward(ctx: Any, hidden: Any, weight: Any, targets: Any) -> Any:
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden.dtype
            rows, head = hidden.to(dtype), weight.to(dtype)
            num_rows, head_is_trained = len(rows), ctx.needs_input_grad[1]
            log_probs, entropy = hidden.new_empty(2, num_rows, dtype=torch.float32)
            is_top1 = hidden.new_empty(num_rows, dtype=torch.bool)
            row_gradients = torch.empty_like(rows)
            # Holds logits, and after `score_` what their gradient is made of.
            buffer = rows.new_empty(num_rows if head_is_trained else min(num_rows, ROWS_PER_PRODUCT), len(head))
            for start in range(0, num_rows, ROWS_PER_PRODUCT):
                stop = min(start + ROWS_PER_PRODUCT, num_rows)
                bite = buffer[start:stop] if head_is_trained else buffer[: stop - start]
                torch.mm(rows[start:stop], head.T, out=bite)
                per_row = (bite, *(tensor[start:stop] for tensor in (targets, log_probs, entropy, is_top1)))
                for few in zip(*(tensor.split(ROWS_PER_SOFTMAX) for tensor in per_row), strict=True):
                    score_(*few)
                torch.mm(bite, head, out=row_gradients[start:stop])
            ctx.save_for_backward(rows, row_gradients, buffer if head_is_trained else None)
            ctx.mark_non_differentiable(entropy, is_top1)
            ctx.dtypes = hidden.dtype, weight.dtype
            return log_probs, entropy, is_top1

        @staticmethod
        def backward(ctx: Any, grad: Any, *_: Any) -> Any:
            rows, row_gradients, residuals = ctx.saved_tensors
            hidden_dtype, weight_dtype = ctx.dtypes
            grad_hidden = (row_gradients * grad[:, None]).to(hidden_dtype)
            if not ctx.needs_input_grad[1]:
                return grad_hidden, None, None
            weighted = residuals * grad[:, None].to(residuals.dtype)
            return grad_hidden, torch.mm(weighted.T, rows).to(weight_dtype), None

    return LabelledLogProbs
