"""How a text ended: others' words for vLLM's, and which of several calls' ends decides."""

from collections.abc import Mapping
from typing import get_args

from fcot_lite.records import FinishReason

# OpenAI's, Anthropic's, TGI's, Gemini's and transformers' words. What a filter or a tool call cut short is no answer.
_OTHERS_WORDS: Mapping[FinishReason, str] = {
    "stop": "eos eos_token end_turn stop_sequence",
    "length": "max_tokens max_new_tokens max_length model_length",
    "abort": "content_filter tool_calls tool_use function_call refusal safety",
}
# In small letters.
FINISH_REASONS: Mapping[str, FinishReason] = {
    **{word: word for word in get_args(FinishReason)},
    **{word: reason for reason, words in _OTHERS_WORDS.items() for word in words.split()},
}
WORST_FIRST: tuple[FinishReason, ...] = ("error", "abort", "length", "repetition", "unknown", "stop")
