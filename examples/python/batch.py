# SPDX-License-Identifier: Apache-2.0
"""Several texts at once: the weights are read once for all of them. batch.py [MODEL]"""
import pathlib
import sys

import wkv

STORIES = pathlib.Path(__file__).parents[1] / "models/tales-8m.gguf"
model = wkv.Model(sys.argv[1] if len(sys.argv) > 1 else STORIES)

prompts = ["There was a king", "A fox met a hare in the wood", "Once upon a time"]
caches = [model.cache() for _ in prompts]
samplers = [wkv.Sampler(temperature=0.8, top_p=0.8, seed=i) for i in range(len(prompts))]
texts = [model.tokenizer.encode(prompt) for prompt in prompts]

feed = [list(tokens) for tokens in texts]
for _ in range(30):
    chosen = model.step(list(zip(caches, feed)), samplers=samplers)
    for tokens, token in zip(texts, chosen):
        tokens.append(token)
    feed = [[token] for token in chosen]

for tokens in texts:
    end = tokens.index(0) if 0 in tokens else len(tokens)  # 0 is the end of a text
    print(" ".join(model.tokenizer.decode(tokens[:end]).split()))
