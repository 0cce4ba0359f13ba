"""Does capture() store what every module got and gave, under the right names, whole or not at all?"""

# SPDX-License-Identifier: MIT
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

import torch
from safetensors import safe_open
from torch import nn

PYTHON = os.path.join(os.path.dirname(__file__), "..", "..", "python")
sys.path.insert(0, PYTHON)
from shardcheck import capture, producers  # noqa: E402
from shardcheck.sglang import hook  # noqa: E402
from shardcheck.vllm import Worker  # noqa: E402


@dataclasses.dataclass
class Batch:
    seq_lens: torch.Tensor
    pool: object = None


@dataclasses.dataclass
class Pair:
    left: torch.Tensor
    right: torch.Tensor


class Inner(nn.Module):
    """Rotates its argument in place, as rope does."""

    def forward(self, x):
        return x.mul_(2)


class Layer(nn.Module):
    def __init__(self, shared, fails=False):
        super().__init__()
        self.proj = nn.Linear(4, 4, bias=False)
        self.inner = Inner()
        self.shared = shared
        self.fails = fails

    def forward(self, x, batch=None, extra=None):
        y = self.inner(self.proj(x))
        y = self.shared(y)
        if self.fails:
            raise ZeroDivisionError
        return {"hidden": y, "rest": (extra, [x, None])}


class Model(nn.Module):
    def __init__(self, n_layers=3, fails=False):
        super().__init__()
        self.shared = nn.Identity()
        self.layers = nn.ModuleList(Layer(self.shared, fails) for _ in range(n_layers))
        self.norm = nn.Identity()

    def forward(self, x, batch=None):
        for layer in self.layers:
            x = layer(x, batch, extra=None)["hidden"]
        return self.norm(x)


def read(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


class Capture(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(1)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.x = torch.randn(3, 4)

    def run_model(self, model, *args, **options):
        with capture(model, self.folder, **options) as captured, torch.no_grad():
            model(self.x, *args)
        self.assertEqual(len(captured.files), 1)
        return read(captured.files[0])

    def test_inputs_are_as_they_were_before_the_module_ran(self):
        tensors, _ = self.run_model(Model())
        self.assertTrue(
            torch.equal(tensors["layers.0.inner.input.0"] * 2, tensors["layers.0.inner.output.0"])
        )
        # and what a module gave is as it was then, though inner doubles it in place
        self.assertTrue(torch.equal(tensors["layers.0.proj.output.0"], tensors["layers.0.inner.input.0"]))

    def test_every_leaf_has_a_name_and_what_is_no_tensor_has_none(self):
        tensors, _ = self.run_model(Model(1))
        self.assertEqual(
            set(tensors),
            {
                "layers.0.input.0",
                "layers.0.output.hidden",
                "layers.0.output.rest.1.0",
                "layers.0.proj.input.0",
                "layers.0.proj.output.0",
                "layers.0.inner.input.0",
                "layers.0.inner.output.0",
                "layers.0.shared.input.0",
                "layers.0.shared.output.0",
                "norm.input.0",
                "norm.output.0",
            },
        )

    def test_a_dataclass_is_flattened_as_an_output_and_stored_once_as_a_batch(self):
        model = Model()
        with mock.patch.object(Inner, "forward", lambda self, x: (Pair(x, x + 1), 3)), mock.patch.object(
            Layer, "forward", lambda self, x, batch=None, extra=None: {"hidden": self.inner(x)[0].right}
        ):
            tensors, _ = self.run_model(model, Batch(torch.tensor([3]), object()))
        self.assertTrue(torch.equal(tensors["layers.1.inner.output.0.right"], self.x + 1 + 1))
        self.assertEqual([name for name in tensors if "seq_lens" in name], ["batch.seq_lens"])

    def test_a_shared_module_bears_the_name_of_the_layer_that_runs(self):
        tensors, _ = self.run_model(Model(), layers=[1])
        self.assertIn("layers.1.shared.input.0", tensors)
        self.assertTrue(torch.equal(tensors["layers.1.shared.output.0"], tensors["layers.1.output.hidden"]))
        self.assertFalse([name for name in tensors if not name.startswith("layers.1.")])

    def test_a_module_called_again_in_a_step_has_a_number(self):
        with mock.patch.object(
            Layer, "forward", lambda self, x, batch=None, extra=None: {"hidden": self.proj(self.proj(x))}
        ):
            tensors, _ = self.run_model(Model(1))
        self.assertTrue(
            torch.equal(tensors["layers.0.proj.output.0"], tensors["layers.0.proj.call1.input.0"])
        )

    def test_the_norm_after_the_last_chosen_layer_is_stored_too(self):
        model = Model()
        for layer in model.layers:
            layer.input_layernorm = nn.Identity()
        with mock.patch.object(
            Layer, "forward", lambda self, x, batch=None, extra=None: {"hidden": self.input_layernorm(x)}
        ):
            tensors, _ = self.run_model(model, layers=[0])
        self.assertIn("layers.1.input_layernorm.input.0", tensors)
        self.assertNotIn("layers.1.input.0", tensors)

    def test_strides_of_views_are_noted_and_packed_tensors_have_none(self):
        self.x = torch.randn(4, 3).t()
        tensors, metadata = self.run_model(Model(1))
        self.assertEqual(json.loads(metadata["stride.layers.0.input.0"]), [1, 3])
        self.assertTrue(torch.equal(tensors["layers.0.input.0"], self.x))
        self.assertNotIn("stride.layers.0.proj.output.0", metadata)

    def test_what_a_file_cannot_hold_is_named_with_its_dtype(self):
        with mock.patch.object(
            Layer,
            "forward",
            lambda self, x, batch=None, extra=None: {
                "hidden": self.proj(x),
                "phase": torch.ones(2, dtype=torch.complex128),
            },
        ):
            tensors, metadata = self.run_model(Model(1))
        self.assertEqual(metadata["unstored.layers.0.output.phase"], "complex128")
        self.assertNotIn("layers.0.output.phase", tensors)

    def test_a_file_is_readable_as_the_umask_says_and_tells_what_computed(self):
        _, metadata = self.run_model(Model())
        before = os.umask(0)
        os.umask(before)
        mode = os.stat(os.path.join(self.folder, "rank0.safetensors")).st_mode
        self.assertEqual(mode & 0o777, 0o666 & ~before)
        self.assertEqual(metadata["device"], f"cpu {torch.backends.cpu.get_cpu_capability()}")

    def test_the_worker_of_vllm_attaches_and_closes(self):
        model = Model()
        config = mock.Mock(spec=["to_dict"], to_dict=lambda: {"hidden_size": 4})
        worker = Worker()
        worker.model_runner = mock.Mock(
            get_model=lambda: model, model_config=mock.Mock(hf_text_config=config)
        )
        worker.capture_attach(self.folder, layers=[2])
        model(self.x)
        tensors, metadata = read(worker.capture_close()[0])
        self.assertIn("layers.2.proj.output.0", tensors)
        self.assertEqual(json.loads(metadata["config_json"]), {"hidden_size": 4})

    def test_the_hook_of_sglang_attaches_before_or_after_the_call_that_it_is_told(self):
        for n, (register, skip, scale) in enumerate(
            [
                ("register_forward_pre_hook", 0, 1),
                ("register_forward_pre_hook", 2, 3),
                ("register_forward_hook", 0, 2),
            ]
        ):
            folder = os.path.join(self.folder, str(n))
            model = Model()
            getattr(model, register)(hook({"folder": folder, "layers": [0], "skip": skip}))
            for i in range(1, 5):
                model(self.x * i)
            tensors, _ = read(os.path.join(folder, "rank0.safetensors"))
            self.assertTrue(torch.equal(tensors["model.layers.0.input.0"], self.x * scale))

    def test_quantised_modules_are_marked_and_others_are_not(self):
        model = Model()
        model.layers[1].proj.weight_packed = nn.Parameter(
            torch.zeros(4, 2, dtype=torch.uint8), requires_grad=False
        )
        model.layers[2].quant_method = type("Fp8LinearMethod", (), {})()
        model.layers[0].quant_method = type("UnquantizedLinearMethod", (), {})()
        _, metadata = self.run_model(model)
        self.assertEqual(
            {key: value for key, value in metadata.items() if key.startswith("quantised.")},
            {"quantised.layers.1.proj": "uint8", "quantised.layers.2": "Fp8LinearMethod"},
        )

    def test_each_step_is_a_file_and_then_the_hooks_are_gone(self):
        model = Model()
        captured = capture(model, self.folder, steps=2)
        for scale in range(3):
            model(self.x * scale)
        self.assertEqual(
            sorted(os.listdir(self.folder)), ["rank0.step0.safetensors", "rank0.step1.safetensors"]
        )
        self.assertFalse(
            any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        )
        self.assertEqual(captured.close(), captured.files)
        self.assertTrue(torch.equal(read(captured.files[1])[0]["layers.0.input.0"], self.x))
        self.assertEqual(read(captured.files[1])[1]["step"], "1")

    def test_a_layer_that_is_skipped_at_the_end_ends_the_step_all_the_same(self):
        model = Model()
        model.norm = None
        with mock.patch.object(Model, "forward", lambda self, x: self.layers[0](x)):
            captured = capture(model, self.folder, steps=2)
            model(self.x), model(self.x)
        self.assertEqual(len(captured.close()), 2)

    def test_files_are_not_overwritten_unless_asked_and_then_only_those_of_the_rank(self):
        self.run_model(Model())
        for name in ("rank0.step4.safetensors", "rank1.safetensors", "rank00.safetensors"):
            open(os.path.join(self.folder, name), "w").close()
        with self.assertRaisesRegex(FileExistsError, "rank0.safetensors is there already"):
            capture(Model(), self.folder)
        self.run_model(Model(), overwrite=True)
        self.assertEqual(
            sorted(os.listdir(self.folder)), ["rank0.safetensors", "rank00.safetensors", "rank1.safetensors"]
        )

    def test_a_file_that_cannot_be_written_leaves_nothing_behind(self):
        with mock.patch("os.replace", side_effect=OSError("no space")), self.assertRaisesRegex(
            OSError, "no space"
        ):
            self.run_model(Model())
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_pass_that_fails_stores_nothing_and_its_exception_is_seen(self):
        model = Model(fails=True)
        with self.assertRaises(ZeroDivisionError):
            self.run_model(model)
        self.assertEqual(os.listdir(self.folder), [])
        self.assertFalse(any(module._forward_hooks for module in model.modules()))

    def test_the_step_after_one_that_failed_is_stored_alone(self):
        model = Model()
        captured = capture(model, self.folder)
        model.layers[2].fails = True
        with contextlib.suppress(ZeroDivisionError):
            model(self.x)
        model.layers[2].fails = False
        model(self.x * 2)
        self.assertEqual(captured.close(), captured.files)
        self.assertTrue(torch.equal(read(captured.files[0])[0]["layers.0.input.0"], self.x * 2))

    def test_an_exception_that_the_model_catches_mixes_no_names(self):
        def forward(layer, x, batch=None, extra=None):
            with contextlib.suppress(TypeError):
                layer.inner(None)
            return {"hidden": layer.proj(x)}

        with mock.patch.object(Layer, "forward", forward), mock.patch.object(
            Inner, "forward", lambda self, x: x + {}
        ):
            tensors, _ = self.run_model(Model(1))
        self.assertEqual(
            sorted(name for name in tensors if "output" in name),
            ["layers.0.output.hidden", "layers.0.proj.output.0", "norm.output.0"],
        )

    def test_that_nothing_ran_is_an_error(self):
        with self.assertRaisesRegex(RuntimeError, "nothing was captured.*enforce_eager"):
            with capture(Model(), self.folder):
                pass

    def test_a_compiled_model_is_refused(self):
        compiled = Model()
        compiled.layers[1].do_not_compile = False  # vLLM's word
        for model in (compiled, torch.compile(Model())):
            with self.assertRaisesRegex(RuntimeError, "compiled.*enforce_eager"):
                capture(model, self.folder)
        eager = Model()
        eager.layers[1].do_not_compile = True
        self.run_model(eager)

    def test_ranks_are_given_or_known_but_never_guessed(self):
        _, metadata = self.run_model(Model())
        self.assertEqual((metadata["tp_rank"], metadata["tp_size"]), ("0", "1"))
        with mock.patch.object(producers, "_world_size", lambda: 2):
            with self.assertRaisesRegex(ValueError, "give tp_rank= and tp_size="):
                capture(Model(), self.folder)
            _, metadata = self.run_model(Model(), tp_rank=1, tp_size=2)
        self.assertEqual((metadata["tp_rank"], metadata["tp_size"]), ("1", "2"))
        self.assertIn("rank1.safetensors", os.listdir(self.folder))
        for wrong in ({"tp_rank": 2, "tp_size": 2}, {"tp_rank": 0}):
            with self.assertRaises(ValueError):
                capture(Model(), self.folder, **wrong)

    def test_pipeline_ranks_have_files_of_their_own(self):
        groups = {"tp": (1, 2), "pp": (1, 2), "dp": (0, 1)}
        staged = producers.PRODUCERS[-1]._replace(groups=lambda _: groups)
        with mock.patch.object(producers, "of", lambda _: staged):
            _, metadata = self.run_model(Model())
        self.assertEqual(os.listdir(self.folder), ["rank1.pp1.safetensors"])
        self.assertEqual(metadata["pp_size"], "2")
        self.assertNotIn("dp_size", metadata)

    def test_layers_that_are_not_there_and_several_lists_are_named(self):
        with self.assertRaisesRegex(ValueError, r"layers=\[3\]: layers has layers 0 to 2"):
            capture(Model(), self.folder, layers=[3])
        model = Model()
        model.tower = nn.ModuleList([nn.Identity()])
        with self.assertRaisesRegex(ValueError, r"layers \(3\), tower \(1\); name one with prefix="):
            capture(model, self.folder)
        self.run_model(model, prefix="layers")
        with self.assertRaisesRegex(ValueError, "no list of layers"):
            capture(nn.Linear(2, 2), self.folder)

    def test_the_package_loads_without_torch(self):
        code = "import sys; sys.modules['torch'] = sys.modules['safetensors'] = None; import shardcheck"
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": PYTHON})


class Transformers(unittest.TestCase):
    def setUp(self):
        transformers = self.transformers = __import__("transformers")
        torch.manual_seed(1)
        config = transformers.LlamaConfig(
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=50,
        )
        self.model = transformers.LlamaForCausalLM(config).to(torch.bfloat16).eval()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def test_llama_prefill_and_decode(self):
        with capture(self.model, self.folder, layers=[0, 1], steps=3) as captured:
            self.model.generate(torch.arange(7)[None], max_new_tokens=3, min_new_tokens=3, do_sample=False)
        steps = [read(path) for path in captured.files]
        self.assertEqual([tensors["model.layers.0.input.0"].shape[1] for tensors, _ in steps], [7, 1, 1])
        self.assertEqual(
            [tensors["model.layers.1.input.position_ids"].tolist()[0][-1] for tensors, _ in steps], [6, 7, 8]
        )
        tensors, metadata = steps[0]
        self.assertEqual((metadata["producer"], metadata["dtype"]), ("transformers", "bfloat16"))
        self.assertEqual(metadata["producer_version"], self.transformers.__version__)
        config = json.loads(metadata["config_json"])
        self.assertEqual((config["model_type"], config["hidden_size"]), ("llama", 64))
        # by hand: layer 0 is embedding, norm, ...; what leaves a layer enters the next
        embedded = self.model.model.embed_tokens(torch.arange(7))
        self.assertTrue(torch.equal(tensors["model.layers.0.input.0"][0], embedded))
        w = self.model.model.layers[1].mlp.down_proj.weight
        act = tensors["model.layers.1.mlp.down_proj.input.0"]
        self.assertTrue(torch.equal(tensors["model.layers.1.mlp.down_proj.output.0"], act @ w.T))
        self.assertTrue(torch.equal(tensors["model.layers.0.output.0"], tensors["model.layers.1.input.0"]))
        self.assertTrue(
            torch.equal(tensors["model.layers.1.output.0"], tensors["model.layers.2.input_layernorm.input.0"])
        )
        self.assertEqual(tensors["model.layers.0.self_attn.input.position_embeddings.0"].shape, (1, 7, 16))


if __name__ == "__main__":
    unittest.main()
