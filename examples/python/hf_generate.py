# SPDX-License-Identifier: Apache-2.0
"""generate() of transformers over libwkv, in two turns with one cache: hf_generate.py [MODEL]"""
import pathlib
import sys

import torch
from transformers import TextStreamer

from wkv.hf import RWKV7Cache, RWKV7ForCausalLM

STORIES = pathlib.Path(__file__).parents[1] / "models/tales-8m.gguf"
model = RWKV7ForCausalLM.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else STORIES)
tokenizer = model.tokenizer()
streamer = TextStreamer(tokenizer, skip_special_tokens=True)
torch.manual_seed(7)

cache = RWKV7Cache()
ids = tokenizer("Once upon a time", return_tensors="pt").input_ids
for more in ("", "\n\nThe fox said:"):
    ids = torch.cat([ids, tokenizer(more, return_tensors="pt").input_ids.long()], 1)
    # all ids so far, of which the cache has read most
    ids = model.generate(ids, past_key_values=cache, streamer=streamer, do_sample=True, temperature=0.8, top_p=0.8, max_new_tokens=40)
    print(cache)
