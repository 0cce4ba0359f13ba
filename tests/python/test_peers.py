"""Does shardcheck.peers answer every shape, and time as many launches as it is asked for?"""

# SPDX-License-Identifier: MIT
import json
import os
import subprocess
import sys
import unittest

PYTHON = os.path.join(os.path.dirname(__file__), "..", "..", "python")
SIZES = dict.fromkeys(("heads", "kv", "dim", "seqs", "keys", "queries", "tokens", "experts", "top", "hidden", "width", "rows",
                       "cols", "inner"), 0)
ATTENTION = {"heads": 4, "kv": 2, "dim": 16, "seqs": 2, "keys": 20}
SHAPES = {
    "prefill": ATTENTION | {"queries": 20},
    "decode": ATTENTION | {"queries": 1},
    "experts": {"tokens": 3, "experts": 4, "top": 2, "hidden": 16, "width": 16, "rows_of_expert": [3, 0, 1, 2]},
    "dense": {"rows": 3, "cols": 5, "inner": 16},
}
# A device that answers nothing more after an error: one peer makes it when it is tried, one in its second round.
BREAKING = """
import itertools, shardcheck.peers as peers
broken = []
def fails(first):
    count = itertools.count()
    def call():
        if broken or next(count) >= first:
            broken.append(True)
            raise RuntimeError("address space")
    return call
peers.Cpu.lost = lambda clock: bool(broken)
peers.FAMILIES["dense"] = lambda clock, s: [(name, None, lambda first=first: fails(first))
                                            for name, first in (("breaks", 0), ("works", 1e9), ("later", 9))]
peers.main()
"""


class Conversation(unittest.TestCase):
    command = ["-m", "shardcheck.peers"]

    def setUp(self):
        self.process = subprocess.Popen([sys.executable, *self.command], text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        env=os.environ | {"PYTHONPATH": PYTHON})

    def tearDown(self):
        self.process.stdin.close()
        self.assertEqual(self.process.wait(60), 0)
        self.process.stdout.close()

    def ask(self, **question):
        print(json.dumps(question), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def names(self, family):
        found = self.ask(shape=SIZES | SHAPES[family] | {"family": family})["peers"]
        return [one["name"] for one in found if "refused" not in one], found


class Peers(Conversation):
    def test_every_family_has_somebody_who_is_timed(self):
        self.assertIn("torch", self.ask(hello="host")["peers"])
        for family in SHAPES:
            names, found = self.names(family)
            self.assertTrue(names, found)
            for name in names:
                for cache in ("cold", "warm"):
                    answer = self.ask(round=name, cache=cache, launches=3, flush_bytes=1 << 20)
                    self.assertEqual(len(answer["seconds"]), 3, answer)
                    self.assertTrue(all(seconds > 0 for seconds in answer["seconds"]), answer)

    def test_what_cannot_be_done_is_said_and_the_conversation_goes_on(self):
        self.assertIn("peers", self.ask(hello="host"))
        self.assertIn("failed", self.ask(round="nobody", cache="warm", launches=1, flush_bytes=0))
        self.assertIn("failed", self.ask(shape=SIZES | {"family": "unknown"}))
        self.assertTrue(self.names("dense")[0])

    def test_a_gpu_that_is_not_there_is_said(self):
        import torch

        if torch.cuda.is_available():
            self.skipTest("there is one")
        self.assertIn("none", self.ask(hello="cuda"))


class BrokenDevice(Conversation):
    command = ["-c", BREAKING]

    def round(self, name):
        return self.ask(round=name, cache="warm", launches=3, flush_bytes=0)

    def test_a_peer_that_breaks_the_device_costs_the_others_nothing(self):
        self.ask(hello="host")
        names, found = self.names("dense")
        self.assertEqual(names, ["works", "later"])
        self.assertIn("address space", found[0]["refused"])
        self.assertIn("seconds", self.round("works"))
        self.assertIn("seconds", self.round("later"))
        self.assertIn("address space", self.round("later")["failed"])
        self.assertIn("seconds", self.round("works"))
        self.assertIn("address space", self.round("later")["failed"])
        self.assertEqual(self.names("dense")[0], ["works", "later"])  # another shape: they are asked again


if __name__ == "__main__":
    unittest.main()
