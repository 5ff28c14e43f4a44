"""What the `engine:`, `lora:` and `sft:` blocks of a recipe may hold, known without importing the libraries.

vLLM, PEFT and TRL take seconds to import, so their option names stand here as tables; tests/test_options.py compares
them with the installed classes and prints the table as it should be. On top of them: ranges, the options that can't
work from end to end, and other tools' names for what a recipe calls differently.
"""

import difflib
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

Device = Literal["cuda", "cpu"]


def _table(text: str) -> dict[str, str]:
    table, kind = {}, ""
    for word in text.split():
        if word.endswith(":"):
            kind = word[:-1]
        else:
            table[word] = kind
    return table


# The kind of value before its options; `?`: null is allowed too; `other`: lists, blocks and mixtures, not checked here.
LORA = _table("""
    bool: ensure_weight_tying fan_in_fan_out inference_mode lora_bias use_dora use_qalora use_rslora
    float: lora_dropout
    int: lora_alpha qalora_group_size r
    other: alora_invocation_tokens alpha_pattern arrow_config auto_mapping corda_config eva_config exclude_modules
        init_lora_weights kasa_config layer_replication layers_pattern layers_to_transform loftq_config
        lora_ga_config megatron_config modules_to_save monteclora_config rank_pattern runtime_config target_modules
        target_parameters task_type trainable_token_indices use_bdlora velora_config
    str: bias
    str?: base_model_name_or_path megatron_core peft_type peft_version revision
""")
SFT = _table("""
    bool: activation_offloading assistant_only_loss auto_find_batch_size average_tokens_across_devices
        batch_eval_metrics bf16_full_eval dataloader_drop_last dataloader_in_order dataloader_persistent_workers
        dataloader_pin_memory do_eval do_predict do_train enable_jit_checkpoint eval_do_concat_batches eval_on_start
        eval_use_gather_object fp16 fp16_full_eval full_determinism gradient_checkpointing hub_always_push
        ignore_data_skip load_best_model_at_end log_on_each_node logging_first_step logging_nan_inf_filter packing
        padding_free prediction_loss_only push_to_hub remove_unused_columns restore_callback_states_from_checkpoint
        save_on_each_node save_only_model shuffle_dataset skip_memory_metrics torch_compile trust_remote_code
        use_cache use_cpu use_liger_kernel
    bool?: bf16 completion_only_loss ddp_broadcast_buffers ddp_find_unused_parameters ddp_static_graph disable_tqdm
        eval_packing greater_is_better hub_private_repo tf32
    float: adam_beta1 adam_beta2 adam_epsilon eval_delay label_smoothing_factor learning_rate logging_steps
        max_grad_norm num_train_epochs save_steps warmup_steps weight_decay
    float?: eval_steps neftune_noise_alpha router_aux_loss_coef
    int: dataloader_num_workers ddp_timeout gradient_accumulation_steps local_rank max_steps
        per_device_eval_batch_size per_device_train_batch_size seed
    int?: data_seed dataloader_prefetch_factor dataset_num_proc ddp_bucket_cap_mb eval_accumulation_steps max_length
        save_total_limit torch_empty_cache_steps
    other: accelerator_config dataset_kwargs debug deepspeed fsdp_config gradient_checkpointing_kwargs
        include_for_metrics include_num_input_tokens_seen label_names liger_kernel_config lr_scheduler_kwargs
        model_init_kwargs optim_target_modules pad_to_multiple_of parallelism_config report_to
        trackio_static_space_id
    str: dataset_text_field eval_strategy hub_strategy length_column_name log_level log_level_replica
        logging_strategy loss_type lr_scheduler_type optim packing_strategy project save_strategy
        train_sampling_strategy truncation_mode
    str?: chat_template_path dataloader_multiprocessing_context ddp_backend eos_token fsdp hub_model_id hub_revision
        hub_token metric_for_best_model optim_args output_dir pad_token resume_from_checkpoint run_name
        torch_compile_backend torch_compile_mode trackio_bucket_id trackio_space_id
""")
ENGINE = _table("""
    bool: aggregate_engine_logging allow_deprecated_quantization cudagraph_metrics data_parallel_external_lb
        data_parallel_hybrid_lb data_parallel_multi_port_external_lb disable_chunked_mm_input
        disable_custom_all_reduce disable_log_stats disable_sliding_window enable_cumem_allocator enable_dbo
        enable_elastic_ep enable_ep_weight_filter enable_eplb enable_expert_parallel enable_fault_tolerance
        enable_flashinfer_autotune enable_hc_sp enable_layerwise_nvtx_tracing enable_logging_iteration_details
        enable_lora enable_mamba_cache_stochastic_rounding enable_mamba_shared_prefix_checkpoint enable_mfu_metrics
        enable_mixed_moe_lora_format enable_mm_embeds enable_mm_processor_stats enable_moe_shared_loras
        enable_nccl_comm_suspend enable_prompt_embeds enable_return_routed_experts enable_shm_tensor_arena
        enable_sleep_mode enable_tower_connector_lora enable_trace_replay enforce_eager fail_on_environ_validation
        fully_sharded_loras interleave_mm_strings jit_monitor_verbose kv_cache_metrics kv_sharing_fast_prefill
        language_model_only long_prefill_token_threshold_adaptive mm_encoder_only numa_bind ray_workers_use_nsight
        return_sampling_mask scheduler_reserve_full_isl skip_mm_profiling skip_tokenizer_init
        sleep_mode_offload_cudagraph specialize_active_lora swa_bounded_replay tokens_only trust_remote_code
        use_fp64_gumbel use_replayssm use_tqdm_on_load
    bool?: async_scheduling dcp_q_replicate disable_cascade_attn disable_hybrid_kv_cache_manager
        disable_nccl_for_dp_synchronization enable_batch_sharded_sampling enable_chunked_prefill
        enable_prefix_caching mm_device_do_normalize
    float: cpu_offload_gb gpu_memory_utilization kv_cache_metrics_sample mm_encoder_fp8_scale_save_margin
        mm_ipc_gpu_memory_gb mm_processor_cache_gb watermark
    float?: kv_offloading_size video_pruning_rate
    int: data_parallel_size dbo_decode_token_threshold dbo_prefill_token_threshold dcp_kv_cache_interleave_size
        decode_context_parallel_size dp_sync_interval elastic_ep_max_dp_size long_prefill_token_threshold
        mamba_cache_philox_rounds master_port max_logprobs max_lora_rank max_loras max_model_len
        mm_shm_cache_max_object_size_mb nnodes node_rank offload_group_size offload_num_in_group
        offload_prefetch_step pipeline_parallel_size prefill_context_parallel_size prefill_schedule_interval
        renderer_num_workers replayssm_buffer_len safetensors_prefetch_block_size safetensors_prefetch_num_threads
        seed shutdown_timeout stream_interval tensor_parallel_size ubatch_size
    int?: block_size cp_kv_cache_interleave_size cpu_distributed_timeout_seconds data_parallel_rank
        data_parallel_rpc_port data_parallel_size_local data_parallel_start_rank distributed_timeout_seconds
        kv_cache_memory_bytes mamba_block_size max_cpu_loras max_cudagraph_capture_size max_lora_cls_labels
        max_num_active_seqs max_num_batched_tokens max_num_queued_reqs max_num_queued_tokens
        max_num_scheduled_tokens max_num_seqs max_parallel_loading_workers num_gpu_blocks_override
        prefix_cache_retention_interval prefix_match_unit spec_tokens
    other: additional_config allowed_media_domains attention_backend attention_config aux_output_config
        collect_detailed_traces compilation_config cpu_offload_params cudagraph_capture_sizes
        custom_histogram_buckets default_mm_loras device_ids diffusion_config distributed_executor_backend
        ec_manager_config ec_transfer_config engram_config eplb_config fault_tolerance_config hf_overrides hf_token
        ignore_patterns ir_op_priority kernel_config kv_cache_dtype_skip_layers kv_events_config kv_transfer_config
        limit_mm_per_prompt logging_config logits_processors lora_dtype lora_target_modules mamba_backend
        mamba_config media_io_kwargs mm_encoder_attn_backend mm_processor_kwargs model_class_overrides
        model_loader_extra_config numa_bind_cpus numa_bind_nodes offload_params optimization_level
        override_generation_config pooler_config profiler_config pt_load_map_location quantization_config
        reasoning_config scheduler_cls served_model_name sleep_preserve_parameter_names speculative_config
        structured_outputs_config watermark_config weight_transfer_config
    str: all2all_backend allowed_local_media_path config_format convert data_parallel_backend dtype
        expert_placement_strategy generation_config jit_monitor_mode kv_cache_dtype kv_offloading_backend
        linear_backend load_format logprobs_mode mamba_cache_dtype mamba_cache_mode mamba_ssm_cache_dtype
        master_addr mm_encoder_tp_mode mm_hasher_algorithm mm_processor_device mm_tensor_ipc model model_impl
        model_weights moe_backend offload_backend per_request_spec_decode_metrics performance_mode
        prefix_caching_hash_algo reasoning_parser runner scheduling_policy sparse_indexer_topk_backend
        tokenizer_mode video_pruning_method worker_cls worker_extension_cls
    str?: code_revision data_parallel_address dcp_comm_backend download_dir gdn_prefill_backend hf_config_path
        io_processor_plugin kda_decode_backend kda_prefill_backend log_config_file log_level mamba_ssu_algorithm
        mm_encoder_attn_dtype mm_encoder_fp8_scale_path mm_encoder_fp8_scale_save_path mm_processor_cache_type
        otlp_traces_endpoint quantization reasoning_parser_plugin revision safetensors_load_strategy
        show_hidden_metrics_for_version spec_method spec_model tokenizer tokenizer_revision
""")
# Of peft.optimizers.create_loraplus_optimizer. It stands with the adapter's options because it is PEFT's and says how
# fast B learns beside A; SFTConfig has no such field, and without an adapter there is neither.
LORAPLUS = {"loraplus_lr_ratio": "float"}
TABLES = {"lora": LORA | LORAPLUS, "sft": SFT, "engine": ENGINE}
CLASSES = {"lora": "PEFT 0.21's LoraConfig", "sft": "TRL 1.16's SFTConfig", "engine": "vLLM 0.32's engine arguments"}

# For `lora`, `sft` and `engine` alike: no name stands in two of them.
_RANGES = {
    "> 0": "lora_alpha learning_rate num_train_epochs adam_epsilon logging_steps",
    ">= 0": "weight_decay warmup_steps max_grad_norm dataloader_num_workers cpu_offload_gb",
    ">= 1": """
        r loraplus_lr_ratio per_device_train_batch_size gradient_accumulation_steps max_length tensor_parallel_size
        block_size pipeline_parallel_size max_num_batched_tokens kv_cache_memory_bytes num_gpu_blocks_override
    """,
    ">= 0 < 1": "lora_dropout adam_beta1 adam_beta2 label_smoothing_factor",
    "> 0 <= 1": "gpu_memory_utilization",
    ">= -1": "max_steps",  # -1: as many as the epochs have
}
RANGES = {name: rule for rule, names in _RANGES.items() for name in names.split()}
_COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}

# Texts of which the library knows only some. Left out: optimisers of packages that are not here (galore, lomo …) and
# schedules that follow an evaluation during training.
_CHOICES = {
    "optim": """
        adamw_torch adamw_torch_fused adamw_bnb_8bit adamw_8bit paged_adamw_32bit paged_adamw_8bit adafactor adagrad sgd
        ademamix ademamix_8bit paged_ademamix_32bit paged_ademamix_8bit lion_32bit lion_8bit paged_lion_32bit
        paged_lion_8bit rmsprop rmsprop_bnb rmsprop_bnb_8bit rmsprop_bnb_32bit
    """,
    "lr_scheduler_type": """
        linear cosine cosine_with_restarts cosine_with_min_lr cosine_warmup_with_min_lr polynomial constant
        constant_with_warmup inverse_sqrt warmup_stable_decay
    """,
    "loss_type": "nll dft",
    "train_sampling_strategy": "random sequential group_by_length batch_rebalance",
    "dtype": "auto half float16 bfloat16 float float32",
}
CHOICES = {name: choices.split() for name, choices in _CHOICES.items()}

# Options without a use here, whatever their value: why, and what to do where removing the line is not all.
_NEVER = {
    "lora": {
        "vLLM serves plain LoRA only": """
            loftq_config eva_config corda_config lora_ga_config runtime_config monteclora_config arrow_config
            kasa_config qalora_group_size megatron_config megatron_core
        """,
        "the run decides it": "task_type peft_type auto_mapping peft_version inference_mode",
        "the adapter belongs to student.model": "base_model_name_or_path revision",
    },
    "sft": {
        "it does nothing here, where TRL is given the token ids and labels that curation wrote": """
            dataset_text_field dataset_kwargs dataset_num_proc shuffle_dataset truncation_mode packing_strategy
            completion_only_loss assistant_only_loss chat_template_path eos_token pad_token length_column_name
        """,
        "it does nothing here, where TRL is given a loaded model": "model_init_kwargs trust_remote_code",
        "the machine decides it": "use_cpu bf16 fp16",
        "the model decides it: batches have no padding where its attention is known to keep rows apart": "padding_free",
        "the run's folder is runs/ and the recipe's name": "output_dir",
        "training takes the recipe's own seed, at its top": "seed data_seed",
        "the run makes checkpoints itself, about once a minute, and resumes from them": """
            save_steps save_total_limit save_only_model save_on_each_node enable_jit_checkpoint ignore_data_skip
            resume_from_checkpoint restore_callback_states_from_checkpoint
        """,
        "nothing is evaluated during training; before and after is the evaluate block's part": """
            eval_steps eval_delay eval_packing per_device_eval_batch_size eval_accumulation_steps eval_on_start
            eval_do_concat_batches eval_use_gather_object include_for_metrics batch_eval_metrics bf16_full_eval
            fp16_full_eval load_best_model_at_end metric_for_best_model greater_is_better do_train do_eval do_predict
        """,
        "a run reports to its own folder only": """
            run_name project trackio_space_id trackio_bucket_id trackio_static_space_id push_to_hub hub_token
            hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision
        """,
        "the student is trained in one process": """
            deepspeed fsdp fsdp_config parallelism_config accelerator_config local_rank ddp_find_unused_parameters
            ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout
        """,
        "TRL deprecates it, and its own head saves that memory already": "use_liger_kernel liger_kernel_config",
    },
    "engine": {
        "a recipe names no code": """
            worker_cls worker_extension_cls scheduler_cls logits_processors io_processor_plugin model_class_overrides
            reasoning_parser_plugin
        """,
        "a secret does not belong in a recipe; take the environment variable HF_TOKEN": "hf_token",
        "texts are generated, from the model's own weights and tokenizer": """
            skip_tokenizer_init runner convert load_format pooler_config
        """,
        "the models are teacher.model and student.model": "model tokenizer served_model_name model_weights",
        "a model of another revision is a folder of its own": "revision tokenizer_revision code_revision",
        "every sample has its own seed, from sampling.seed": "seed",
        "it follows student.method and student.lora.r": "enable_lora max_lora_rank",
    },
}


def _unless(*harmless: Any) -> Callable[[Any], bool]:
    return lambda value: value not in harmless


def _mentions(*words: str) -> Callable[[Any], bool]:
    """Of a text, or of a list of texts as `target_modules` is."""
    return lambda value: any(word in str(value).lower() for word in words)


def _above_512(value: Any) -> bool:  # vllm/config/lora.py at 0.32.0: the largest max_lora_rank
    ranks = value.values() if isinstance(value, dict) else [value]
    return any(isinstance(rank, int) and rank > 512 for rank in ranks)


_Refusal = tuple[Callable[[Any], bool], str]
_NOT_SERVED = "vLLM serves no such adapter"  # vllm/lora/peft_helper.py at 0.32.0 lists what it refuses
_REFUSED: dict[str, dict[str, _Refusal]] = {
    "lora": {
        "use_dora": (_unless(False), f"{_NOT_SERVED}; take use_rslora: true or a larger r"),
        # PiSSA, OLoRA, CorDA and LoftQ change the weights below the adapter; LoRA-GA first takes gradients.
        "init_lora_weights": (
            _unless(True, False, "gaussian", "eva", "orthogonal", "mica"),
            "vLLM or the trainer can't follow it; take true, gaussian, eva, orthogonal or mica",
        ),
        "bias": (_unless("none"), f"{_NOT_SERVED}; take none"),
        "lora_bias": (_unless(False), f"{_NOT_SERVED}; remove it"),
        "use_qalora": (_unless(False), f"{_NOT_SERVED}; take method: qlora"),
        "use_bdlora": (_unless(None), f"{_NOT_SERVED}; remove it"),
        "alora_invocation_tokens": (_unless(None), f"{_NOT_SERVED}; remove it"),
        "layer_replication": (_unless(None), f"{_NOT_SERVED}; remove it"),
        "modules_to_save": (_unless(None), f"{_NOT_SERVED}; take method: full to train whole modules"),
        "trainable_token_indices": (_unless(None), f"{_NOT_SERVED}; take method: full"),
        "target_modules": (
            _mentions("lm_head", "embed", "wte", "wpe"),
            f"{_NOT_SERVED}; take all-linear, or method: full",
        ),
        "r": (_above_512, "vLLM serves adapters up to rank 512; take a smaller r, or method: full"),
        "rank_pattern": (_above_512, "vLLM serves adapters up to rank 512; take smaller ranks, or method: full"),
    },
    "sft": {  # the values that change nothing pass: sft_arguments in student.py sets them
        "packing": (_unless(False), "batches have no padding here anyway, where the model allows it; remove it"),
        "save_strategy": (_unless("no"), "the run makes checkpoints itself; remove it"),
        "eval_strategy": (_unless("no"), "nothing is evaluated during training; remove it"),
        "prediction_loss_only": (_unless(True), "nothing is evaluated during training; remove it"),
        "logging_strategy": (_unless("steps"), "losses are logged by steps; remove it, logging_steps says how many"),
        "logging_nan_inf_filter": (_unless(False), "it would hide a loss that is not a number; remove it"),
        "report_to": (_unless([], None, "none"), "a run reports to its own folder only; remove it"),
        "disable_tqdm": (_unless(True), "progress is shown by fcot itself; remove it"),
    },
    "engine": {
        "data_parallel_size": (
            _unless(1),
            "vLLM refuses it in process; take tensor_parallel_size, or one run for each card",
        ),
        "quantization": (
            _mentions("bitsandbytes", "gguf"),
            "vLLM 0.32 has left it to plugins; take an AWQ or GPTQ model, or on a GPU quantization: fp8",
        ),
        "trust_remote_code": (_unless(False), "it runs code that comes with the model; take a model vLLM knows"),
        "disable_log_stats": (_unless(False), "there the tokens of cancelled samples are counted; remove it"),
    },
}
_REFUSED_ON_CPU: dict[str, _Refusal] = {
    "enable_chunked_prefill": (_unless(False, None), "vLLM 0.32 crashes on a seeded request that it chunks; remove it"),
    "quantization": (_mentions("fp8"), "FP8 needs a GPU; take an AWQ, GPTQ or INT8 model, or no quantization"),
    "enable_sleep_mode": (_unless(False), "vLLM has no sleep mode on a CPU; remove it"),
}


def faults(block: str, given: Mapping[str, Any], device: Device | None = None) -> Iterator[tuple[str, str]]:
    """(option, what is wrong) for the known options of an `engine`, `lora` or `sft` block, at most one for each.

    What a device can't do is looked at only where `device` is given.
    """
    never = {name: why for why, names in _NEVER[block].items() for name in names.split()}
    for name, value in given.items():
        if name not in TABLES[block]:
            continue
        refusals = [_REFUSED[block].get(name)]
        if (block, device) == ("engine", "cpu"):
            refusals.append(_REFUSED_ON_CPU.get(name))
        why = f"{never[name]}; remove it" if name in never else _wrong_kind(value, TABLES[block][name])
        why = why or next((refusal[1] for refusal in refusals if refusal and refusal[0](value)), None)
        why = why or _out_of_range(value, RANGES.get(name, ""))
        if not why and name in CHOICES and value not in CHOICES[name]:
            close = difflib.get_close_matches(value, CHOICES[name], n=1)
            why = f"did you mean {close[0]!r}?" if close else f"must be one of {', '.join(CHOICES[name])}"
        if why:
            yield name, f"{why} (it is {repr(value)[:60]})"


def usable(block: str) -> list[str]:
    """The options of an `engine`, `lora` or `sft` block that some value is allowed for."""
    return [name for name in TABLES[block] if name not in " ".join(_NEVER[block].values()).split()]


def _wrong_kind(value: Any, kind: str) -> str | None:
    null, kind = kind.endswith("?"), kind.rstrip("?")
    types, words = {
        "bool": (bool, "true or false"),
        "int": (int, "a whole number"),
        "float": (int | float, "a number"),
        "str": (str, "text"),
        "other": (object, ""),
    }[kind]
    if (null and value is None) or kind == "other":
        return None
    if isinstance(value, types) and isinstance(value, bool) == (kind == "bool"):
        return None
    quotes = "; put it in quotes" if kind == "str" and isinstance(value, bool | int | float) else ""
    return f"must be {words}{' or null' if null else ''}{quotes}"


def _out_of_range(value: Any, rule: str) -> str | None:
    words = rule.split()
    bounds = list(zip(words[::2], words[1::2], strict=True))
    if value is None or all(_COMPARE[sign](value, int(bound)) for sign, bound in bounds):
        return None
    return "must be " + " and ".join(f"{sign} {bound}" for sign, bound in bounds)


# Other tools' names for our keys. `sampling`, `engine` and `model` stand in more than one block.
_ALIASES = {
    "sampling.max_tokens": "max_new_tokens max_gen_toks max_completion_tokens",
    "sampling.temperature": "do_sample",
    "sampling.stop": "stop_sequences stop_words stop_strings",
    "engine.max_model_len": "max_model_length context_length max_context_length",
    "engine.gpu_memory_utilization": "gpu_memory gpu_memory_fraction mem_fraction_static",
    "engine.tensor_parallel_size": "tensor_parallel tp_size num_gpus",
    "model": "base_model model_name_or_path model_name model_id pretrained_model_name_or_path",
    "name": "run_name output_dir",
    "task.name": "dataset datasets dataset_name",
    "task.train": "max_train_samples",
    "task.validation": "val_set_size",
    "prompts.NAME.system": "system_prompt",
    "prompts.NAME.template": "prompt_template",
    "prompts.NAME.examples": "num_fewshot num_shots",
    "teacher.n": "num_generations num_return_sequences num_samples best_of",
    "curate.max_length engine.max_model_len": "sequence_len seq_len max_seq_length max_seq_len cutoff_len",
    "student.method": "load_in_4bit load_in_8bit adapter finetuning_type use_peft",
    "student.lora.r": "lora_rank lora_r rank",
    "student.lora.lora_alpha": "alpha",
    "student.lora.lora_dropout": "dropout",
    "student.lora.target_modules": "lora_target lora_target_modules lora_target_linear",
    "student.sft.per_device_train_batch_size": "micro_batch_size batch_size train_batch_size per_gpu_train_batch_size",
    "student.sft.gradient_accumulation_steps": "gradient_accumulation grad_accum",
    "student.sft.num_train_epochs": "num_epochs epochs n_epochs",
    "student.sft.learning_rate": "lr",
    "student.sft.lr_scheduler_type": "lr_scheduler scheduler",
    "student.sft.optim": "optimizer",
    "student.sft.warmup_steps": "warmup warmup_ratio",  # a share where it is below 1
    "student.sft.max_grad_norm": "gradient_clipping",
}
_GENERATING = ("teacher", "evaluate")
_OURS = {alias: ours.split() for ours, aliases in _ALIASES.items() for alias in aliases.split()}


def our_name(alias: str, block: str) -> str | None:
    """The dotted keys here for what other tools call `alias`, seen from a top-level block; None where unknown."""
    keys = []
    for ours in _OURS.get(alias, []):
        if ours == "model":
            keys.append(f"{block if block in ('teacher', 'student') else 'student'}.model")
        elif ours.startswith(("sampling.", "engine.")):
            keys += [f"{name}.{ours}" for name in ([block] if block in _GENERATING else _GENERATING)]
        else:
            keys.append(ours)
    return " and ".join(keys) or None
