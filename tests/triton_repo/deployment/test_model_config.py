"""The generated configurations, parsed by Triton's own protobuf."""

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from srp4ctr.features.tensors import schema
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.deployment import model_config

LIMITS = model_config.Limits(
    max_batch_size=32, sizes={"L": 5, "E": 2, "S": 6, "D": 8, "M": 3}
)
PARAMETERS = {"redis": '127.0.0.1:1 "quoted" \\ back'}
STEPS = model_config.three_steps("v7", PARAMETERS)
ONE_STEP = model_config.one_step("v7", PARAMETERS, instances=2)
ENSEMBLES = [*model_config.ensembles(STEPS), *model_config.ensembles(ONE_STEP)]
TYPES = {"int64": "INT64", "float32": "FP32", "uint8": "UINT8", "string": "STRING"}


def parse(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def names(tensors: Any) -> list[str]:
    return [tensor.name for tensor in tensors]


@pytest.mark.parametrize("step", [*STEPS, *ONE_STEP], ids=lambda step: step.name)
def test_a_steps_tensors_are_the_schemas(step: model_config.StepConfig) -> None:
    config = parse(model_config.step_text(step, LIMITS))
    declared = step.inputs + step.optional_inputs
    assert config.name == step.name
    assert config.max_batch_size == 32
    for read, spec in zip(
        [*config.input, *config.output], [*declared, *step.outputs], strict=True
    ):
        assert read.name == spec.name
        assert model_config_pb2.DataType.Name(read.data_type) == f"TYPE_{TYPES[spec.dtype]}"
        assert tuple(read.dims) == spec.dims(LIMITS.sizes)


def test_only_the_optional_inputs_may_be_left_out() -> None:
    config = parse(model_config.step_text(STEPS[0], LIMITS))
    optional = [tensor.name for tensor in config.input if tensor.optional]
    assert optional == names(
        schema.ITEM_INPUTS + schema.OPTIONAL_REQUEST_INPUTS + schema.NUMBER_INPUTS
    )
    rank, *_ = model_config.ensembles(STEPS)
    config = parse(model_config.ensemble_text(rank, LIMITS))
    assert names(config.input)[:2] == ["user_id", "item_ids"]
    assert [tensor.optional for tensor in config.input[:2]] == [False, False]


def test_the_version_is_in_the_names_of_the_steps() -> None:
    rank, *_ = model_config.ensembles(STEPS)
    config = parse(model_config.ensemble_text(rank, LIMITS))
    assert [step.model_name for step in config.ensemble_scheduling.step] == [
        "fetch_features_v7",
        "behavior_encoder_v7",
        "click_head_v7",
    ]


def test_a_user_is_encoded_without_items_by_every_layout() -> None:
    for steps in (STEPS, ONE_STEP):
        [encode] = [e for e in model_config.ensembles(steps) if e.name == "encode_user"]
        config = parse(model_config.ensemble_text(encode, LIMITS))
        assert names(config.input) == names(
            schema.USER_INPUTS + schema.OPTIONAL_REQUEST_INPUTS
        )
        assert names(config.output) == names(schema.USER_EMBEDDINGS + schema.REQUEST_NOTES)


def test_the_ensembles_are_those_that_are_listed() -> None:
    listed = model_names.ENSEMBLES
    assert tuple(names(model_config.ensembles(ONE_STEP))) == listed
    assert tuple(names(model_config.ensembles(STEPS))) == listed[:-1]  # not RECOMMEND_ITEMS


@pytest.mark.parametrize(
    "ensemble", ENSEMBLES, ids=lambda each: f"{each.name}-{each.steps[0].name}"
)
def test_each_steps_input_comes_from_the_caller_or_an_earlier_step(
    ensemble: model_config.EnsembleConfig,
) -> None:
    config = parse(model_config.ensemble_text(ensemble, LIMITS))
    made = set(names(config.input))
    for step in config.ensemble_scheduling.step:
        assert set(step.input_map.values()) <= made
        made |= set(step.output_map.values())
    assert set(names(config.output)) <= made


def test_a_python_step_has_as_many_processes_as_configured() -> None:
    groups = parse(model_config.step_text(ONE_STEP[0], LIMITS)).instance_group
    assert [group.count for group in groups] == [1, 1]
    priorities = {group.rate_limiter.priority for group in groups}
    assert len(priorities) == 2  # else Triton takes them for one


@pytest.mark.parametrize("step", [*STEPS, *ONE_STEP], ids=lambda step: step.name)
def test_no_step_has_a_queue_policy(step: model_config.StepConfig) -> None:
    # With one a call that finds all processes busy may wait for half a second.
    batching = parse(model_config.step_text(step, LIMITS)).dynamic_batching
    assert not batching.HasField("default_queue_policy")


@pytest.mark.parametrize(("maximum", "preferred"), [(1, []), (4, [4]), (32, [4, 8])])
def test_a_python_step_prefers_small_batches_within_the_maximum(
    maximum: int, preferred: list[int]
) -> None:
    limits = replace(LIMITS, max_batch_size=maximum)
    batching = parse(model_config.step_text(ONE_STEP[0], limits)).dynamic_batching
    assert batching.preferred_batch_size == preferred


def test_callers_with_their_own_features_send_no_ids_to_the_one_step() -> None:
    _, score, *_ = model_config.ensembles(ONE_STEP)
    (step,) = parse(model_config.ensemble_text(score, LIMITS)).ensemble_scheduling.step
    assert set(step.input_map) == {spec.name for spec in model_names.MODEL_INPUTS}
    made = schema.SCORE_TENSORS + schema.RANKING_TENSORS
    assert set(step.output_map) == {spec.name for spec in made}


def test_a_parameter_keeps_quotes_and_backslashes() -> None:
    config = parse(model_config.step_text(STEPS[0], LIMITS))
    assert config.parameters["redis"].string_value == '127.0.0.1:1 "quoted" \\ back'


def test_tritons_own_onnx_backend_batches_requests() -> None:
    for step in STEPS[1:]:
        config = parse(model_config.step_text(step, LIMITS))
        assert config.backend == "onnxruntime"
        assert config.HasField("dynamic_batching")


@pytest.mark.parametrize("is_one", [True, False])
def test_a_bundle_with_user_fields_has_one_more_tensor(is_one: bool) -> None:
    users = schema.USER_TENSORS
    (spec,) = users
    steps = (
        model_config.one_step("v7", PARAMETERS, 2, users)
        if is_one
        else model_config.three_steps("v7", PARAMETERS, users)
    )
    limits = replace(LIMITS, sizes={**LIMITS.sizes, "U": 3})
    texts = {step.name: model_config.step_text(step, limits) for step in steps}
    declaring = [name for name, text in texts.items() if spec.name in text]
    assert len(declaring) == (1 if is_one else 2)  # what fetches it, and the head
    rank, score, *_ = model_config.ensembles(steps)
    assert spec in score.inputs
    assert spec not in rank.inputs + rank.optional_inputs
    last = parse(model_config.ensemble_text(score, limits)).ensemble_scheduling.step[-1]
    assert spec.name in last.input_map
    passed = parse(model_config.ensemble_text(rank, limits)).ensemble_scheduling.step[-1]
    assert (spec.name in passed.input_map) is not is_one


@pytest.mark.parametrize("is_one", [True, False])
def test_a_bundle_with_numbers_of_candidates_returns_their_columns(is_one: bool) -> None:
    limits = replace(LIMITS, sizes={**LIMITS.sizes, "J": 8})
    returned = schema.number_tensors(limits.sizes)
    steps = (
        model_config.one_step("v7", PARAMETERS, 2, of_numbers=returned)
        if is_one
        else model_config.three_steps("v7", PARAMETERS, of_numbers=returned)
    )
    native = model_config.native_step("v7", "srp4ctr_1", returned) if is_one else None
    for ensemble in model_config.ensembles(steps, native):
        config = parse(model_config.ensemble_text(ensemble, limits))
        found = {tensor.name: tuple(tensor.dims) for tensor in config.output}
        has_items = ensemble.name in ("rank_clicks", "rank_clicks_canary")
        assert (found.get("number_columns") == (-1, 8)) is has_items
        assert ("number_column_names" in found) is has_items
    assert schema.number_tensors(LIMITS.sizes) == ()


def test_every_bundle_takes_numbers_of_candidates() -> None:
    for steps in (STEPS, ONE_STEP):
        rank, *_ = model_config.ensembles(steps)
        config = parse(model_config.ensemble_text(rank, LIMITS))
        optional = {tensor.name for tensor in config.input if tensor.optional}
        assert set(names(schema.NUMBER_INPUTS)) <= optional
        [first, *_] = config.ensemble_scheduling.step
        assert set(names(schema.NUMBER_INPUTS)) <= set(first.input_map)
