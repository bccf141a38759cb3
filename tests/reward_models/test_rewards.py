"""A trained reward model as a reward, alone or over the policy's own base."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from letter_data import TEXTS
from rich.console import Console
from small_bert import save_bert
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from chat_toys import ASKED, BAD, GOOD, SYSTEM, TAGS, USER, policy_folder, with_template, write
from rlgf.chat import as_dicts
from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model
from rlgf.models.lora import Adapters, LoRAConfig
from rlgf.reward_models.rewards import AdapterReward, ModelReward
from rlgf.reward_models.train import load_reward_recipe, train_reward_model
from rlgf.rewards import Reward, RewardInput, build_reward, checked_rewards, score
from rlgf.rewards.base import PolicyReadingReward
from rlgf.rollout.config import RolloutConfig
from rlgf.run.build import build_parts
from rlgf.run.checkpoint import save_policy
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.types import Message
from tokenizer_kinds import word_pieces
from toys import letter_gpt


def test_a_folder_is_a_reward_and_its_scores_are_centred(preference: Path) -> None:
    reward = build_reward("model", {"model": str(preference / "model")})
    good, bad = score(reward, RewardInput(["bc", "bc"], ["aaaaaa", "dddddd"], {}, [(), ()])).total.tolist()
    assert good > 0 > bad
    rows = [json.loads(line) for line in (preference / "train.jsonl").read_text().splitlines()]
    prompts = [row["prompt"] for row in rows for _ in range(2)]
    texts = [row[side] for row in rows for side in ("chosen", "rejected")]
    scores = torch.tensor(reward(prompts, texts))
    assert float(scores.mean()) == pytest.approx(0, abs=1e-4)
    assert reward(prompts[:7], texts[:7]) == pytest.approx(scores[:7].tolist(), abs=1e-4), (
        "whatever the batch"
    )
    assert reward([], []) == []
    assert len(reward([""], [""])) == 1


def adapted(folder: str, **sizes: int) -> LanguageModel:
    policy = load_language_model(ModelConfig(model=folder))
    return replace(policy, adapters=Adapters(policy.model, LoRAConfig(**sizes)))


def attached(folder: Path, policy: LanguageModel) -> Reward:
    reward = build_reward("adapter", {"folder": str(folder)})
    assert isinstance(reward, PolicyReadingReward)
    reward.attach(policy, RolloutConfig(), 0)
    return reward


def test_an_adapter_on_the_policys_base_pays_what_a_model_of_its_own_would(
    adapter: Path, letter_folder: str
) -> None:
    expected = build_reward("model", {"model": str(adapter)})(*TEXTS)
    assert max(expected) - min(expected) > 1
    policy = adapted(letter_folder, r=2)
    ids = torch.tensor([[0, 1, 2]])
    with torch.no_grad():
        before = policy.model(ids).logits
        reward, other = attached(adapter, policy), attached(adapter, policy)
        assert reward(*TEXTS) == pytest.approx(expected, abs=1e-5)
        assert torch.equal(policy.model(ids).logits, before), "the policy runs with its own adapter alone"
        for parameter in policy.trained:
            parameter.add_(1.0)
        assert not torch.allclose(policy.model(ids).logits, before, atol=1e-2)
        assert reward(*TEXTS) == pytest.approx(expected, abs=1e-5), "what the policy learns moves no reward"
        assert other(*TEXTS) == reward(*TEXTS)


def test_what_a_head_pays_is_not_rounded_to_half_precision(
    adapter: Path, letter_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = build_reward("model", {"model": str(adapter)})(*TEXTS)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert build_reward("model", {"model": str(adapter)})(*TEXTS) == expected
    shared = attached(adapter, adapted(letter_folder, r=2))
    assert isinstance(shared, AdapterReward)
    found = shared._scorer.scores(*TEXTS)
    assert found.tolist() != found.bfloat16().tolist()


def test_a_text_that_ends_in_the_padding_token_is_paid_likewise(adapter: Path, letter_folder: str) -> None:
    """As most chats do whose tokenizer pads with its end of text."""
    whole, shared = (
        build_reward("model", {"model": str(adapter)}),
        attached(adapter, adapted(letter_folder, r=2)),
    )
    assert isinstance(whole, ModelReward)
    assert isinstance(shared, AdapterReward)
    end = whole._scorer.tokenizer.eos_token_id
    rows = [[0, 1, end], [0, 1, 2, 3], [end, 2, end, end], [end]]
    with torch.no_grad():
        torch.testing.assert_close(shared._scorer.logits(rows), whole._scorer.logits(rows))


def test_a_run_with_a_reward_over_its_own_base(adapter: Path, letter_folder: str, tmp_path: Path) -> None:
    config = load_config(
        {
            "task": "toys:LetterTask",
            "policy": {"model": letter_folder, "lora": {"r": 2}},
            "reward": {"name": "adapter", "options": {"folder": str(adapter)}},
            "algorithm": {"base": "ppo", "kl": {"coefficient": 0.0}},
            "output": str(tmp_path),
            "rollout": {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6},
            "update": {"minibatch": 8},
            "training": {"updates": 1, "trackers": []},
        }
    )
    trainer = Trainer(config, build_parts(config), Display(Console(quiet=True)))
    rollout = trainer.collect(trainer.batch(), trainer.row())
    expected = build_reward("model", {"model": str(adapter)})(list(rollout.prompts), list(rollout.texts))
    assert trainer.step()["reward"] == pytest.approx(sum(expected) / len(expected), abs=1e-4)


def test_an_adapter_reads_by_the_tokenizer_that_it_was_trained_with(
    adapter: Path, letter_folder: str, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    shutil.copytree(adapter, told)
    with_template(AutoTokenizer.from_pretrained(adapter), "{{ messages[-1].content }}").save_pretrained(told)
    chats = [[{"role": "user", "content": "bc"}], [{"role": "user", "content": "a"}]], ["aaaa", "dd"]
    expected = build_reward("model", {"model": str(told)})(*chats)
    policy = adapted(letter_folder, r=2)
    # The policy's own may pad with nothing, as one given in Python, and read chats as its recipe says.
    policy.tokenizer.pad_token = None
    with_template(policy.tokenizer, "{{ messages[0].content }}")
    assert attached(told, policy)(*chats) == pytest.approx(expected, abs=1e-5)


def test_an_adapter_that_cannot_stand_on_the_policy_is_refused(
    adapter: Path, letter_folder: str, preference: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"it holds a whole model; pay by it with 'reward.name: model'"):
        build_reward("adapter", {"folder": str(preference / "model")})
    with pytest.raises(UserError, match=r"set 'policy.lora'"):
        attached(adapter, load_language_model(ModelConfig(model=letter_folder)))
    save_policy(letter_gpt(layers=2), tmp_path / "other")
    with pytest.raises(UserError, match=r"belongs to the base '.*', and the policy's is '.*other'"):
        attached(adapter, adapted(str(tmp_path / "other")))
    notes = json.loads((adapter / "reward.json").read_text())
    shallow = tmp_path / "shallow"
    shutil.copytree(adapter, shallow)
    (shallow / "reward.json").write_text(json.dumps({**notes, "layers": 1}))
    with pytest.raises(UserError, match="an adapter on 1 layers of its base"):
        build_reward("adapter", {"folder": str(shallow)})


def test_a_folder_without_a_reward_model_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(
            UserError, match=r"'adapter', option 'folder' .* holds no adapter that `rlgf reward"
        ):
            build_reward("adapter", {"folder": str(folder)})
        with pytest.raises(UserError, match=r"model '.*' cannot be loaded"):
            build_reward("model", {"model": str(folder)})


def test_what_somebody_published_pays_as_it_does_alone(tmp_path: Path, language_model: LanguageModel) -> None:
    """Also where it names no token that pads, and texts of unequal length end in the tokenizer's end of text."""
    tokenizer = with_template(copy.deepcopy(language_model.tokenizer), TAGS)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, num_labels=1, pad_token_id=None
    )
    torch.manual_seed(0)
    model = GPT2ForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    reward = build_reward("model", {"model": str(tmp_path)})
    texts = ["", "ab", "a", "dcbadc", "bad"]
    with torch.no_grad():
        alone = [model(torch.tensor([tokenizer("ca" + text)["input_ids"]])).logits.item() for text in texts]
        assert reward(["ca"] * 5, texts) == pytest.approx(alone, abs=1e-6)
        assert reward._scorer.model.config.pad_token_id is None, "as in its files"
        rows = [tokenizer.apply_chat_template([*ASKED, last], return_dict=False) for last in (GOOD, BAD)]
        assert len(rows[0]) != len(rows[1])
        chats = [model(torch.tensor([row])).logits.item() for row in rows]
    assert reward([ASKED] * 2, [[GOOD], [BAD]]) == pytest.approx(chats, abs=1e-6)
    with pytest.raises(UserError, match="has one output and no labels: leave out 'label'"):
        build_reward("model", {"model": str(tmp_path), "label": "good"})


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification"])
def test_a_classifier_pays_the_probability_of_a_label(tmp_path: Path, kind: str) -> None:
    tokenizer, labels = word_pieces(), {0: "bad", 1: "so so", 2: "good"}
    torch.manual_seed(0)
    save_bert(tmp_path, BertForSequenceClassification, id2label=labels, problem_type=kind)
    model = BertForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(50)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["a joy", "the film was dull and long"]
    with torch.no_grad():
        logits = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])
    expected = logits.softmax(dim=1) if kind.startswith("single") else logits.sigmoid()
    reward = build_reward("model", {"model": str(tmp_path), "label": "good"})
    assert reward(["", "it is"], texts) == pytest.approx(expected[:, 2].tolist(), abs=1e-5)
    with pytest.raises(UserError, match=r"set 'label' \(it is None\) to one of bad, so so, good"):
        build_reward("model", {"model": str(tmp_path)})


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers by an old name
def test_an_adapter_of_a_classifier_pays_the_probability_of_a_label(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base, folder = save_bert(tmp_path / "base", BertForSequenceClassification), tmp_path / "adapter"
    options = {"num_labels": 3, "ignore_mismatched_sizes": True}
    model = BertForSequenceClassification.from_pretrained(base, **options)
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"])).eval()
    adapted.save_pretrained(folder)
    tokenizer = word_pieces()
    tokenizer.save_pretrained(folder)
    with torch.no_grad():
        alone = adapted(**tokenizer("a joy", return_tensors="pt")).logits.softmax(dim=1)[0, 2].item()
    reward = build_reward("model", {"model": str(folder), "label": "LABEL_2"})
    assert reward(["it is"], ["a joy"]) == pytest.approx([alone], abs=1e-6)
    with pytest.raises(UserError, match=r"set 'label' \(it is None\) to one of LABEL_0, LABEL_1, LABEL_2"):
        build_reward("model", {"model": str(folder)})


def test_a_model_that_scores_no_texts_is_refused_by_its_configuration(letter_folder: str) -> None:
    with pytest.raises(UserError, match="is a GPT2LMHeadModel, which scores no texts"):
        build_reward("model", {"model": letter_folder})


def test_a_label_of_a_reward_model_of_ones_own_is_refused(preference: Path) -> None:
    with pytest.raises(UserError, match=r"option 'label' .* has one output: leave it out"):
        build_reward("model", {"model": str(preference / "model"), "label": "good"})


def test_a_reward_model_of_chats_pays_what_transformers_users_expect(
    tmp_path: Path, language_model: LanguageModel
) -> None:
    folder = policy_folder(tmp_path / "base", language_model, TAGS)
    rows = [{"chosen": [*ASKED, GOOD], "rejected": [*ASKED, BAD]}] * 4
    file = write(tmp_path / "pairs.jsonl", *rows)
    told = {"kind": "preference", "model": folder, "output": str(tmp_path / "model"), "max_tokens": 60}
    train_reward_model(load_reward_recipe(told | {"data": {"train": file, "validation": file}}))
    reward = build_reward("model", {"model": str(tmp_path / "model")})
    chat = RewardInput(["not read"], [" a joy"], messages=[(SYSTEM, USER)])
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = tokenizer.apply_chat_template([*ASKED, GOOD], tokenize=False)
    with torch.no_grad():
        logit = model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits.item()
    centre = json.loads((tmp_path / "model" / "reward.json").read_text())["centre"]
    assert checked_rewards(reward, chat).tolist() == pytest.approx([logit - centre], abs=1e-5)
    turns = (Message("assistant", " a"), Message("user", "more?"), Message("assistant", " joy"))
    dialogue = RewardInput(["not read"], ["nor this"], messages=[(SYSTEM, USER)], dialogues=[turns])
    text = tokenizer.apply_chat_template([*ASKED, *as_dicts(turns)], tokenize=False)
    with torch.no_grad():
        logit = model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits.item()
    assert checked_rewards(reward, dialogue).tolist() == pytest.approx([logit - centre], abs=1e-5)
