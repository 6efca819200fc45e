# SPDX-License-Identifier: Apache-2.0
"""One prompt, read once, and several ways to go on: branch.py [MODEL]"""
import pathlib
import sys

import wkv

STORIES = pathlib.Path(__file__).parents[1] / "models/tales-8m.gguf"
model = wkv.Model(sys.argv[1] if len(sys.argv) > 1 else STORIES)

tokens = model.tokenizer.encode("There was once a king who had three sons, and the youngest")
cache = model.cache()
cache.step(tokens[:-1], logits=False)

for seed in range(4):
    fork = cache.copy()  # shares the memory of the prompt's state until it goes on
    text = model.generate(prompt_tokens=tokens[-1:], cache=fork, max_tokens=20, temperature=1.0, seed=seed).text()
    print("...", " ".join(text.split()))
