"""252 instructions that people wrote go the whole way: most to the hosted stand-in, what is private to real Triton."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from pipeline_process import HOSTED, LOCAL, running_pipeline
from requests_made import encoded
from user_instructions import COUNT, instructions, to_request

from streams.request import parse


@pytest.fixture(params=[pytest.param("kafka", marks=pytest.mark.kafka), "dev_broker"])
def bootstrap(request: pytest.FixtureRequest) -> str:
    """Each of the brokers in turn."""
    address: str = request.getfixturevalue(request.param)
    return address


@pytest.mark.triton
async def test_every_instruction_ends_with_one_response_and_a_whole_story(bootstrap, triton, prefix, tmp_path):
    """All end, each with one response and a complete story; SQL counts what was sent; what is private stays here."""
    requests = [to_request(instruction) for instruction in instructions()]
    routes = HOSTED + LOCAL
    async with running_pipeline(tmp_path, bootstrap, prefix, routes=routes, triton=triton) as pipeline:
        await pipeline.start_worker()
        await pipeline.send_all(requests)
        await pipeline.until_answered(150)
        outcomes = await pipeline.check(outcomes={"completed"})
        assert outcomes["completed"] == len(requests) == COUNT
        assert pipeline.ask("select count(*) from requests") == [(COUNT,)]
        assert pipeline.dead == []
        served = Counter(response[0]["receipt"]["servedBy"]["provider"] for response in pipeline.responses.values())
        private = {made["requestId"] for made in requests if made["classification"] == "confidential"}
        assert served["triton"] >= len(private) >= 9, pipeline.told([str(served)])
        assert served["stand-in"] == pipeline.call_count() >= 200
        left = "select request_id, class from crossings"
        crossed = dict(pipeline.ask(left))
        assert set(crossed.values()) == {"public", "internal"}
        assert not private & crossed.keys()


def test_the_instructions_keep_the_contract():
    """Each instruction becomes a valid request with an id of its own."""
    requests = [to_request(instruction) for instruction in instructions()]
    assert len({parse(encoded(made)).request_id for made in requests}) == COUNT


def test_our_own_instructions_stand_in_for_the_shared_ones(tmp_path: Path):
    """Without the shared folder there are as many requests, all different, some of them private."""
    requests = [to_request(instruction) for instruction in instructions(tmp_path / "absent.jsonl")]
    assert len(requests) == COUNT
    assert len({made["input"]["messages"][0]["content"] for made in requests}) == COUNT
    assert sum(made["classification"] == "confidential" for made in requests) == 12
    assert all(parse(encoded(made)) for made in requests)
