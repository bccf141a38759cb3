"""An OpenAI-compatible server to try guides with: SmolLM2-135M on this machine, through llama.cpp.

pip install xllamacpp==2026.10.11549
python examples/serve_smollm2.py                # until Ctrl-C
rlgf train imdb guides/server algorithm=ppo++
"""

from __future__ import annotations

import argparse
import signal

import xllamacpp

from rlgf.demo.models import packaged_file


def serve(port: int, threads: int, slots: int) -> xllamacpp.Server:
    """Start the server; it runs in threads of its own until it is dropped."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(packaged_file())
    parameters.model_alias = {"smollm2-135m"}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = port
    parameters.n_parallel = slots
    parameters.n_ctx = 512 * slots
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    return xllamacpp.Server(parameters)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slots", type=int, default=8, help="requests served side by side")
    arguments = parser.parse_args()
    server = serve(arguments.port, arguments.threads, arguments.slots)
    print(f"guide.url={server.listening_address}/v1", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print("Stopped.")
