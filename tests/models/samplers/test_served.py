"""What travels to a sampler in another process and back, and what is refused on the way."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import torch
from safetensors.torch import load
from test_lora import adapted, trained_a_little

from engines import ASKED, client, desk_of, ids, serving
from rlgf.errors import UserError
from rlgf.models.generate import Continuation
from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers import Beginning, BuiltinSampler, bring_weights, wire
from rlgf.models.samplers.desk import Desk
from rlgf.models.samplers.server import SamplerServer
from rlgf.models.samplers.wire import Asked, Piece, described
from rlgf.models.sampling import Sampling
from toys import letter_gpt, letter_t5


def test_texts_are_those_of_the_built_in_sampler_bit_for_bit(url: str) -> None:
    policy = letter_gpt(seed=0)
    served = client(url, policy)
    bring_weights(served)
    found, expected = (one.write(ASKED, Sampling()) for one in (served, BuiltinSampler(policy, "policy")))
    assert ids(found) == ids(expected)
    for one, other in zip(found, expected, strict=True):
        # Written together or not, rounding apart, and sent without any more of it.
        torch.testing.assert_close(one.logprobs, other.logprobs, atol=1e-6, rtol=0)
        assert one.finished == other.finished


def test_an_encoder_decoder_is_served_by_the_built_in_sampler() -> None:
    policy = letter_t5(seed=0)
    with serving(desk_of(letter_t5(seed=1))) as url:
        served = client(url, policy)
        bring_weights(served)
        found = served.write(ASKED, Sampling())
    assert ids(found) == ids(BuiltinSampler(policy, "policy").write(ASKED, Sampling()))


def test_weights_travel_in_pieces(url: str, own: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PIECE", 5000)
    policy = letter_gpt(seed=0)
    weights = list(policy.model.named_parameters())
    groups = wire.grouped(weights, torch.float32)
    assert 3 < len(groups) < len(weights)
    assert max(sum(one.nbytes for one in group.values()) for group in groups if len(group) > 1) <= 5000
    bring_weights(client(url, policy))
    for (name, mine), (_, theirs) in zip(weights, own.model.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def test_weights_are_rounded_where_the_engine_rounds_them() -> None:
    weights = {"a": torch.tensor([1.0, 1.001]), "b": torch.tensor([1.0, 2.0], dtype=torch.float16)}
    (group,) = wire.grouped(weights.items(), torch.bfloat16)
    there = {"a": torch.zeros(2), "b": torch.zeros(2)}
    wire.copy_into(there, load(wire.packed(group, torch.bfloat16)))
    assert there["a"].tolist() == [1.0, 1.0]
    assert there["b"].tolist() == [1.0, 2.0]
    (group,) = wire.grouped(weights.items(), torch.float32)
    wire.copy_into(there, load(wire.packed(group, torch.float32)))
    assert torch.equal(there["a"], weights["a"])


def test_of_a_policy_with_an_adapter_the_adapter_alone_travels_after_the_first_time() -> None:
    policy, own = adapted(letter_gpt(seed=0), r=2), adapted(letter_gpt(seed=1), r=2)
    assert policy.adapters is not None
    # As of a critic that shares the base.
    policy.adapters.add("critic")
    with serving(desk_of(own)) as url:
        served = client(url, policy)
        bring_weights(served)
        before = copy.deepcopy(own.model.state_dict())
        trained_a_little(policy)
        with torch.no_grad():
            policy.model.get_input_embeddings().weight.add_(1.0)
        bring_weights(served)
    changed = {name for name, one in own.model.state_dict().items() if not torch.equal(one, before[name])}
    assert changed
    assert all(".lora_" in name for name in changed)
    for mine, theirs in zip(policy.trained, own.trained, strict=True):
        assert torch.equal(mine, theirs)


def test_a_server_that_was_started_anew_between_two_updates_is_brought_everything() -> None:
    policy = adapted(letter_gpt(seed=0), r=2)
    with serving(desk_of(adapted(letter_gpt(seed=1), r=2))) as url:
        served = client(url, policy)
        bring_weights(served)
    own = adapted(letter_gpt(seed=2), r=2)
    with serving(desk_of(own)) as url:
        served._connection.url = url
        bring_weights(served)
    for mine, theirs in zip(policy.model.parameters(), own.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


class Counting(BuiltinSampler):
    """Keeps how many texts it was asked for in each call."""

    def __init__(self, language_model: LanguageModel) -> None:
        super().__init__(language_model, "policy")
        self.calls: list[int] = []

    def write(self, beginnings: Sequence[Beginning], *args: Any, **options: Any) -> list[Continuation]:
        self.calls.append(len(beginnings))
        return super().write(beginnings, *args, **options)


def test_what_processes_ask_at_the_same_time_is_one_call(own: LanguageModel) -> None:
    counting = Counting(own)
    desk = Desk(own, counting, described(own, "builtin", torch.float32, 64))
    given = dict(letter_gpt(seed=0).model.named_parameters())
    found: dict[int, list[list[int]]] = {}

    def ask(number: int) -> None:
        sampling = Sampling(temperature=0.5) if number == 1 else Sampling()
        asked = Asked(weights="w", sampling=sampling, beginnings=ASKED[2 * number : 2 * number + 2])
        found[number] = [text.ids for text in desk.write(asked).texts]

    with serving(desk):
        desk.take(Piece(weights="w", number=0, of=1), given)
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for number, thread in enumerate(threads, start=1):
        thread.start()
        while desk._jobs.qsize() < number:
            time.sleep(0.001)
    with serving(desk):
        for thread in threads:
            thread.join()
    assert counting.calls == [6, 2], "the one at another temperature goes apart"
    alone = BuiltinSampler(letter_gpt(seed=0), "policy")
    assert [*found[0], *found[2], *found[3]] == ids(alone.write([*ASKED[:2], *ASKED[4:]], Sampling()))
    assert found[1] == ids(alone.write(ASKED[2:4], Sampling(temperature=0.5)))


# What is said.


def test_nobody_at_the_address_is_one_sentence(url: str) -> None:
    with pytest.raises(
        UserError, match=r"'sampler.server' http://127.0.0.1:9: nobody answers there \(Connection"
    ):
        client("http://127.0.0.1:9", letter_gpt())


def test_somebody_else_at_the_address_is_one_sentence() -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(self.server.status)  # type: ignore[attr-defined]
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *args: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Page) as page:
        thread = threading.Thread(target=page.serve_forever)
        thread.start()
        for status in (200, 404):
            page.status = status  # type: ignore[attr-defined]
            with pytest.raises(UserError, match="what answers there is no sampler of rlgf"):
                client(f"http://127.0.0.1:{page.server_port}", letter_gpt())
        page.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("policy", "changes", "said"),
    [
        (letter_gpt(), {"engine": "vllm"}, "writes with 'builtin', and 'sampler.engine' is 'vllm'"),
        (
            letter_gpt(),
            {"max_tokens": 65},
            "writes texts of at most 64 tokens, prompts included, .* texts of 65",
        ),
        (letter_gpt("abce"), {}, "has another vocabulary than the policy"),
        (
            adapted(letter_gpt(), targets=["c_attn"]),
            {},
            "has no adapter, and the policy an adapter with r 8 and alpha 16 in c_attn",
        ),
    ],
)
def test_a_sampler_of_another_policy_is_one_sentence(
    url: str, policy: LanguageModel, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=rf"the sampler at {url} {said}.*: start it with this recipe\."):
        client(url, policy, **changes)


def test_another_architecture_or_shape_is_one_sentence(url: str) -> None:
    from test_samplers import tiny_model

    with pytest.raises(UserError, match="has a GPT2LMHeadModel, and the policy is a LlamaForCausalLM"):
        client(url, tiny_model(letters="abcd"))
    served = client(url, letter_gpt(width=16))
    with pytest.raises(
        UserError, match=r"'transformer.wte.weight' has the shape \(5, 32\) .* \(5, 16\) in the policy"
    ):
        bring_weights(served)


def test_a_server_belongs_to_the_run_that_came_last(url: str) -> None:
    first, second = client(url, letter_gpt()), client(url, letter_gpt(seed=3))
    bring_weights(first)
    bring_weights(second)
    with pytest.raises(UserError, match="has not the weights of this run any more, since another run"):
        first.write(ASKED, Sampling())
    with pytest.raises(UserError, match="has been given weights by another run: start one for each run"):
        bring_weights(first)
    assert second.write(ASKED, Sampling())


def test_a_server_that_ends_in_mid_run_is_one_sentence(desk: Desk) -> None:
    with serving(desk) as url:
        served = client(url, letter_gpt())
        bring_weights(served)
    with pytest.raises(UserError, match=r"answers no more \(Connection refused\): see what it wrote last"):
        served.write(ASKED, Sampling())


def test_a_server_that_hangs_is_not_waited_for_forever(desk: Desk) -> None:
    """It takes requests, and nobody works."""
    server = SamplerServer(desk)
    thread = threading.Thread(target=server._http.serve_forever)
    thread.start()
    served = client(server.url, letter_gpt(), seconds=0.2)
    with pytest.raises(UserError, match=r"answers no more \(no answer within 0.2 s\)"):
        bring_weights(served)
    server._http.shutdown()
    server._http.server_close()
    thread.join()
