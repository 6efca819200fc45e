# SPDX-License-Identifier: Apache-2.0
"""RWKV-7 for transformers: a model for generate(), and the cache it goes on from.

    from wkv.hf import RWKV7Cache, RWKV7ForCausalLM

    model = RWKV7ForCausalLM.from_pretrained("rwkv7-g1-0.4b.pth")
    tokenizer = model.tokenizer()
    cache = RWKV7Cache()
    ids = tokenizer("Once upon a time", return_tensors="pt").input_ids
    ids = model.generate(ids, past_key_values=cache, max_new_tokens=50)
    ids = torch.cat([ids, tokenizer(" The end.", return_tensors="pt").input_ids], 1)
    ids = model.generate(ids, past_key_values=cache, max_new_tokens=50)    # reads what is new, and only that

libwkv computes; torch carries ids and scores. Needs torch and transformers 5: pip install wkv[hf].
"""
try:
    import torch  # noqa: F401
    import transformers
except ImportError as error:
    raise ImportError(f"wkv.hf needs torch and transformers (pip install wkv[hf]): {error}") from error

if int(transformers.__version__.split(".")[0]) < 5:
    raise ImportError(f"wkv.hf needs transformers 5, this is {transformers.__version__}")

from .cache import RWKV7Cache, RWKV7CacheLayer
from .model import RWKV7Config, RWKV7ForCausalLM
from .tokenizer import RWKV7Tokenizer

__all__ = ["RWKV7Cache", "RWKV7CacheLayer", "RWKV7Config", "RWKV7ForCausalLM", "RWKV7Tokenizer"]
