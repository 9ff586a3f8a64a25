"""The model repository on the real Triton: what a client sees."""

from __future__ import annotations

import json
import time

import pytest
from stand_in import tokenizer

from headgate_cli.home import triton_models

STOCK_INPUTS = {
    "text_input": "BYTES",
    "decoder_text_input": "BYTES",
    "max_tokens": "INT32",
    "num_return_sequences": "INT32",
    "bad_words": "BYTES",
    "stop_words": "BYTES",
    "exclude_input_in_output": "BOOL",
    "end_id": "INT32",
    "pad_id": "INT32",
    "top_k": "INT32",
    "top_p": "FP32",
    "temperature": "FP32",
    "length_penalty": "FP32",
    "repetition_penalty": "FP32",
    "min_tokens": "INT32",
    "presence_penalty": "FP32",
    "frequency_penalty": "FP32",
    "seed": "UINT64",
    "return_log_probs": "BOOL",
    "return_context_logits": "BOOL",
    "return_generation_logits": "BOOL",
    "return_perf_metrics": "BOOL",
    "return_num_input_tokens": "BOOL",
    "return_num_output_tokens": "BOOL",
    "beam_width": "INT32",
    "stream": "BOOL",
    "prompt_embedding_table": "FP16",
    "prompt_table_extra_id": "UINT64",
    "prompt_vocab_size": "INT32",
    "embedding_bias_words": "BYTES",
    "embedding_bias_weights": "FP32",
    "lora_task_id": "UINT64",
    "lora_weights": "FP16",
    "lora_config": "INT32",
    "guided_decoding_guide_type": "BYTES",
    "guided_decoding_guide": "BYTES",
}
STOCK_OUTPUTS = {
    "text_output": "BYTES",
    "cum_log_probs": "FP32",
    "output_log_probs": "FP32",
    "context_logits": "FP32",
    "generation_logits": "FP32",
    "batch_index": "INT32",
    "sequence_index": "INT32",
    "kv_cache_alloc_new_blocks": "INT32",
    "kv_cache_reused_blocks": "INT32",
    "kv_cache_alloc_total_blocks": "INT32",
    "arrival_time_ns": "INT64",
    "first_scheduled_time_ns": "INT64",
    "first_token_time_ns": "INT64",
    "last_token_time_ns": "INT64",
    "acceptance_rate": "FP32",
    "total_accepted_draft_tokens": "INT32",
    "total_draft_tokens": "INT32",
    "num_input_tokens": "INT32",
    "num_output_tokens": "INT32",
}
COUNTS = {"return_num_input_tokens": True, "return_num_output_tokens": True}
QUESTION = "Hello there, how are you?"


def generate(triton, model="fast", **fields):
    body = {"text_input": QUESTION, "max_tokens": 12} | fields
    return triton.http.post(f"/v2/models/{model}/generate", json=body)


def stream(triton, model="fast", **fields):
    """The events of a stream, each with the moment it arrived."""
    body = {"text_input": QUESTION, "max_tokens": 12, "stream": True} | fields
    with triton.http.stream("POST", f"/v2/models/{model}/generate_stream", json=body) as response:
        assert response.status_code == 200
        lines = [(time.monotonic(), line) for line in response.iter_lines() if line]
    return [(moment, json.loads(line.removeprefix("data: "))) for moment, line in lines]


def test_every_model_of_the_repository_is_ready(triton):
    index = triton.http.post("/v2/repository/index").json()
    models = {entry.name for entry in triton_models().iterdir() if entry.is_dir()}
    assert {entry["name"]: entry["state"] for entry in index} == dict.fromkeys(models, "READY")
    assert {"best", "fast", "sentiment"} < models


@pytest.mark.parametrize("model", ["best", "fast"])
def test_the_text_interface_is_the_stock_one(triton, model):
    metadata = triton.http.get(f"/v2/models/{model}").json()
    assert {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]} == STOCK_INPUTS
    assert {tensor["name"]: tensor["datatype"] for tensor in metadata["outputs"]} == STOCK_OUTPUTS
    assert metadata["platform"] == "ensemble"


@pytest.mark.parametrize("model", ["best", "fast"])
def test_an_answer_carries_the_exact_token_numbers_when_asked(triton, model):
    answer = generate(triton, model, **COUNTS).json()
    assert answer["num_input_tokens"] == 7
    assert answer["num_output_tokens"] == 12 == len(tokenizer.encode(answer["text_output"].encode()))


def test_an_answer_carries_no_token_numbers_unless_asked(triton):
    assert not {"num_input_tokens", "num_output_tokens", "cum_log_probs"} & generate(triton).json().keys()


def test_the_same_prompt_and_seed_give_the_same_answer(triton):
    answers = [generate(triton, seed=seed).json()["text_output"] for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_a_stream_sends_one_event_a_token_in_order_while_it_writes(triton):
    whole = generate(triton, "best").json()["text_output"]
    events = stream(triton, "best", **COUNTS)
    assert "".join(event["text_output"] for _, event in events) == whole
    assert [event["num_output_tokens"] for _, event in events] == [1] * 12
    # best writes 20 tokens a second: eleven pauses of 50 ms lie between the first and the last.
    assert events[-1][0] - events[0][0] > 11 * 0.05 * 0.8


def test_the_prompt_is_echoed_only_on_request(triton):
    echoed = generate(triton, exclude_input_in_output=False, **COUNTS).json()
    assert echoed["text_output"] == QUESTION + generate(triton).json()["text_output"]
    assert echoed["num_output_tokens"] == 7 + 12


def test_a_stop_word_ends_the_answer_and_stays_in_it(triton):
    phrase = " ".join(generate(triton).json()["text_output"].split()[:2])
    answer = generate(triton, stop_words=["no such words", phrase], **COUNTS).json()
    assert answer["text_output"] == f" {phrase}"
    assert answer["num_output_tokens"] < 12


def test_bad_words_are_never_written(triton):
    word = generate(triton).json()["text_output"].split()[1]
    answer = generate(triton, bad_words=[word], **COUNTS).json()
    assert word not in answer["text_output"].split()
    assert answer["num_output_tokens"] == 12


def test_the_end_id_ends_the_answer_and_is_not_part_of_it(triton):
    whole = generate(triton, max_tokens=40).json()["text_output"]
    answer = generate(triton, max_tokens=40, end_id=tokenizer.encode(b".")[0], **COUNTS).json()
    assert answer["text_output"] == whole.partition(".")[0]
    assert answer["num_output_tokens"] == len(tokenizer.encode(answer["text_output"].encode()))


def test_log_probs_and_times_are_sent_when_asked(triton):
    answer = generate(triton, return_log_probs=True, return_perf_metrics=True).json()
    assert answer["output_log_probs"] == [0.0] * 12
    moments = [answer[f"{name}_time_ns"] for name in ("arrival", "first_scheduled", "first_token", "last_token")]
    assert moments == sorted(moments)


@pytest.mark.parametrize("endpoint", ["generate", "generate_stream"])
@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"max_tokens": 0}, "(max_tokens) must be greater than 0, got 0"),
        ({"max_tokens": -5}, "(max_tokens) must be greater than 0, got -5"),
        ({"text_input": ""}, "input_ids must not be empty"),
        ({"max_tokens": 1_000_000}, "KV cache blocks"),
        ({"text_input": "x, " * 20_000}, "Prompt length (40001) exceeds maximum input length (32768)"),
        ({"beam_width": 2}, "beam_width must be 1"),
        ({"return_context_logits": True}, "return_context_logits is not available"),
    ],
)
def test_what_the_engine_cannot_do_is_refused_with_a_reason(triton, endpoint, fields, complaint):
    body = {"text_input": QUESTION, "max_tokens": 5} | fields
    response = triton.http.post(f"/v2/models/fast/{endpoint}", json=body)
    assert response.status_code == 400
    assert complaint in json.loads(response.text.removeprefix("data: "))["error"]


def test_max_tokens_is_required(triton):
    response = triton.http.post("/v2/models/best/generate", json={"text_input": QUESTION})
    assert response.status_code == 400
    assert "missing required input(s) ['max_tokens']" in response.json()["error"]


@pytest.mark.parametrize(
    ("text", "label"), [("I love it, great work", "positive"), ("not good, awful", "negative"), ("a gate", "neutral")]
)
def test_sentiment_answers_on_infer(triton, text, label):
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": [text]}
    outputs = triton.http.post("/v2/models/sentiment/infer", json={"inputs": [tensor]}).json()["outputs"]
    by_name = {output["name"]: output for output in outputs}
    assert by_name["label"]["data"] == [label]
    assert by_name["score"]["datatype"] == "FP32"
