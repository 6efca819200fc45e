# SPDX-License-Identifier: Apache-2.0
"""The parts that generate is made of, for a loop of your own: embed.py [PROMPT [MODEL]]"""
import pathlib
import sys

import wkv

STORIES = pathlib.Path(__file__).parents[1] / "models/tales-8m.gguf"
prompt = sys.argv[1] if len(sys.argv) > 1 else "Once upon a time"
model = wkv.Model(sys.argv[2] if len(sys.argv) > 2 else STORIES)
decoder = model.tokenizer.decoder()
sampler = wkv.Sampler(temperature=0.8, top_p=0.8, seed=7)

cache = model.cache()
logits = cache.step(model.tokenizer.encode(prompt))
print(prompt, end="")
for _ in range(100):
    token = sampler.sample(logits)
    if token == 0:  # the end of the text
        break
    print(decoder.push(token), end="", flush=True)
    cache.step(token, out=logits)
print(decoder.finish())
