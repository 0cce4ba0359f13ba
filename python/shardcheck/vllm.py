"""Capture in the workers of a vLLM that runs: LLM(..., worker_extension_cls="shardcheck.vllm.Worker").

llm.collective_rpc("capture_attach", args=("dump",), kwargs={"layers": [0, 1]})
llm.collective_rpc("capture_close")"""

# SPDX-License-Identifier: MIT
from .capture import capture


class Worker:
    """Methods that vLLM adds to the worker of every rank."""

    def capture_attach(self, folder, **options):
        """Options as of shardcheck.capture. The model's configuration is vLLM's, overrides included."""
        runner = self.model_runner
        options.setdefault("config", runner.model_config.hf_text_config)
        self.shardcheck_capture = capture(runner.get_model(), folder, **options)

    def capture_close(self):
        """Paths of the files of this rank."""
        return self.shardcheck_capture.close()
