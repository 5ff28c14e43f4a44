"""How vLLM 0.32 and torch 2.13 say that memory ran out, and what a user can do about it."""

import re

_RAN_OUT = re.compile(
    r"out of memory|can(?:no|')t allocate memory|bad_alloc|ALLOC_FAILED|No available memory for the cache blocks"
    r"|larger than the available KV cache|memory on (?:device|node) .* is less than",
    re.IGNORECASE | re.DOTALL,
)
LOWER_MEMORY = (
    "lower engine.max_num_seqs and engine.max_model_len (teacher, evaluate) or sft.per_device_train_batch_size "
    "(student), or take a smaller model. engine.kv_cache_memory_bytes is what vLLM takes for its cache on a CPU, "
    "engine.gpu_memory_utilization its share of a card"
)


def ran_out_of_memory(message: str) -> bool:
    return _RAN_OUT.search(message) is not None
