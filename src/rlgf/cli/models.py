"""The commands that make models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from rlgf.errors import UserError

app = typer.Typer()


@app.command()
def reward(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Recipe of a reward model, such as verdicts, and overrides such as epochs=2."),
    ] = None,
) -> None:
    """Train a reward model as a recipe says; without one the built-in classifier and judge, or show them."""
    if sources:
        from rlgf.reward_models.train import load_reward_recipe, train_reward_model

        config = load_reward_recipe(*sources)
        Console().print(Text(f"{config.output}: {json.dumps(train_reward_model(config))}"), soft_wrap=True)
        return
    from rlgf.demo.judge import Judge
    from rlgf.demo.sentiment import Sentiment

    for name, scorer in (("sentiment", Sentiment()), ("judge", Judge())):
        Console().print(Text(f"{name}: {json.dumps(scorer.report)}"))


@app.command("serve-sampler")
def serve_sampler(
    sources: Annotated[list[str], typer.Argument(help="The recipes and overrides of the run.")],
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port to listen at; 0 takes any that is free.")
    ] = 8300,
) -> None:
    """Write the policy's texts for a run that trains in other processes, on other GPUs."""
    from rlgf.config import load_config
    from rlgf.models.samplers.server import SamplerServer
    from rlgf.models.samplers.wire import token
    from rlgf.run.serve import policy_desk

    config = load_config(*sources, {"sampler": {"server": None}})
    server = SamplerServer(policy_desk(config), host, port, token())
    said = (
        f"Writing for '{config.name}' with {config.sampler.engine}; train it with sampler.server={server.url}"
    )
    Console().print(Text(said), soft_wrap=True)
    server.serve()


@app.command()
def merge(
    adapter: Annotated[
        str, typer.Argument(help="A folder with an adapter, such as runs/NAME/policy or runs/reward/NAME.")
    ],
    output: Annotated[Path, typer.Argument(help="The folder for the whole model.")],
) -> None:
    """Add an adapter to its base's weights, and save the model as if it had been trained whole."""
    from rlgf.models.loading import ModelConfig, load_language_model
    from rlgf.models.lora import adapter_base
    from rlgf.outputs import require_no_model
    from rlgf.reward_models.notes import holds_reward_model
    from rlgf.reward_models.rewards import ModelReward
    from rlgf.run.checkpoint import save_policy
    from rlgf.run.hub import carry_card
    from rlgf.run.start import carry_start

    if adapter_base(adapter, None) is None:
        raise UserError(
            f"{adapter} holds no adapter: give the policy's folder of a run with 'policy.lora', or a reward model's "
            "that was trained with 'lora'."
        )
    require_no_model(output, "output")
    if holds_reward_model(adapter):
        ModelReward(adapter).save(output)
    else:
        whole = load_language_model(ModelConfig(model=adapter))
        save_policy(whole, output)
        carry_start(adapter, output)
        carry_card(adapter, output, whole.model)
    Console().print(Text(f"Wrote {output}."))


@app.command()
def push(
    run: Annotated[Path, typer.Argument(help="Output folder of a finished run, or a policy's folder.")],
    to: Annotated[str, typer.Option(help="The repository, owner/name; it is made where there is none.")],
    private: Annotated[
        bool, typer.Option("--private/--public", help="For its owner alone, or for everybody.")
    ] = True,
) -> None:
    """Upload a run's policy with its model card to the Hugging Face hub."""
    from rlgf.run.hub import push_to_hub

    Console().print(Text(f"Uploaded to {push_to_hub(run, to, private=private)}."), soft_wrap=True)
