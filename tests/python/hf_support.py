# SPDX-License-Identifier: Apache-2.0
"""What the tests of wkv.hf share: models, and what libwkv says without transformers."""
import random
import sys
import unittest

try:
    import numpy
    import torch
    import transformers
except ImportError as error:
    print(f'skipped: wkv.hf needs torch and transformers ({error})')
    sys.exit(77)
if int(transformers.__version__.split('.')[0]) < 5:
    print(f'skipped: wkv.hf needs transformers 5, this is {transformers.__version__}')
    sys.exit(77)

import support
from wkv.hf import RWKV7Cache, RWKV7ForCausalLM

TINY = support.ROOT / 'tests/data/rnd_a/weights/rnd_a.bf16.pth'
FLA_FOLDER = support.ROOT / 'tests/data/rnd_a/weights/fla_bf16'
END = 0  # of a text, and padding
_models = {}


def tiny():
    """2 layers, width 64, 331 ids; the same bits in every batch."""
    if 'tiny' not in _models:
        _models['tiny'] = RWKV7ForCausalLM.from_pretrained(TINY, device='cpu', threads=2, reproducible=True)
    return _models['tiny']


def story():
    if 'story' not in _models:
        _models['story'] = RWKV7ForCausalLM.from_wkv(support.story_model())
    return _models['story']


def some_ids(count, seed=1):
    numbers = random.Random(seed)
    return [numbers.randrange(1, 331) for _ in range(count)]


def tensor(*rows):
    return torch.tensor([list(row) for row in rows])


def padded(*rows, left=True):
    """Rows of different lengths as ids and a mask."""
    width = max(map(len, rows))
    spare = [[0] * (width - len(row)) for row in rows]
    ids = [gap + row if left else row + gap for gap, row in zip(spare, rows)]
    mask = [[0] * len(gap) + [1] * len(row) if left else [1] * len(row) + [0] * len(gap) for gap, row in zip(spare, rows)]
    return {'input_ids': tensor(*ids), 'attention_mask': tensor(*mask)}


def expected(ids, count, model=None, ends=()):
    """The likeliest continuation, by libwkv alone."""
    ids, cache = list(ids), (model or tiny()).wkv.cache()
    logits, said = cache.step(ids), []
    while len(said) < count:
        said.append(int(numpy.argmax(logits)))
        if said[-1] in ends:
            break
        logits = cache.step(said[-1])
    return said


def said(model, ids, count, **options):
    """What generate() adds, greedy and without an end unless asked for."""
    options = {'eos_token_id': None, 'do_sample': False, **options}
    ids = torch.as_tensor([ids]) if isinstance(ids, list) else ids
    return model.generate(ids, max_new_tokens=count, **options)[:, ids.shape[1]:].tolist()


def content(cache):
    """Everything that a cache holds, to compare."""
    states = [None if state is None else state.clone() for layer in cache for state in layer.values()]
    return cache.get_seq_length(), cache.tokens, states


def is_same(one, other):
    return one[:2] == other[:2] and len(one[2]) == len(other[2]) and all(
        a is b or torch.equal(a, b) for a, b in zip(one[2], other[2]))


def with_past(model, ids, **options):
    """A cache that has read ids, [batch, columns] or a list."""
    cache = RWKV7Cache(**options)
    model(torch.as_tensor([ids]) if isinstance(ids, list) else ids, past_key_values=cache, logits_to_keep=1)
    return cache


def output_cache(output):
    return output['cache'] if 'cache' in output.keys() else output['past_key_values']


class Favour(transformers.LogitsProcessor):
    """Makes a row say a token at a step: (step, row, token)."""

    def __init__(self, *choices):
        self.choices, self.step = choices, -1

    def __call__(self, input_ids, scores):
        self.step += 1
        for step, row, token in self.choices:
            if step == self.step:
                scores[row, token] = 1e4
        return scores


class Case(unittest.TestCase):
    def assertUnchanged(self, cache, before):
        self.assertTrue(is_same(content(cache), before), 'the cache has changed')

    def refuse(self, error, text, function, *arguments, cache=None, **options):
        """A call fails with a text of one line, and a cache is as before."""
        before = None if cache is None else content(cache)
        if cache is not None:
            options['past_key_values'] = cache
        with self.assertRaisesRegex(error, text) as caught:
            function(*arguments, **options)
        self.assertNotIn('\n', str(caught.exception))
        if cache is not None:
            self.assertUnchanged(cache, before)
