# SPDX-License-Identifier: Apache-2.0
"""Continue a text: generate.py [PROMPT [MODEL]]"""
import pathlib
import sys

import wkv

STORIES = pathlib.Path(__file__).parents[1] / "models/tales-8m.gguf"
prompt = sys.argv[1] if len(sys.argv) > 1 else "Once upon a time"
model = wkv.Model(sys.argv[2] if len(sys.argv) > 2 else STORIES)

print(prompt, end="")
for piece in model.generate(prompt, max_tokens=100, temperature=0.8, top_p=0.8, seed=7):
    print(piece, end="", flush=True)
print()
