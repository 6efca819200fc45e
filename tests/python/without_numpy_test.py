# SPDX-License-Identifier: Apache-2.0
"""The tests of steps, states and text once more, as if numpy were not installed."""
import importlib.util
import sys
import unittest

has_numpy = importlib.util.find_spec('numpy') is not None
sys.modules['numpy'] = None  # type: ignore[assignment]

import support  # noqa: E402
import wkv  # noqa: E402
from cache_test import Store, State  # noqa: E402,F401
from conformance_test import Batch, BufferOrder, BufferSize, BufferType, GoldenLogits, ReadOnlyBuffer  # noqa: E402,F401
from step_test import Buffers, Drafts  # noqa: E402,F401
from tensor_test import Tensors  # noqa: E402,F401


class WithoutNumpy(unittest.TestCase):
    def test_logits_are_a_memoryview(self):
        logits = support.story_model().cache().step([1])
        self.assertIsInstance(logits, memoryview)
        self.assertEqual((logits.format, logits.shape), ('f', (2048,)))
        self.assertEqual(support.story_model().cache().step([1, 2], all_logits=True).shape, (2, 2048))
        self.assertEqual(wkv.Sampler(greedy=True)(logits), max(range(2047), key=lambda i: logits[i]))


if __name__ == '__main__':
    if not has_numpy:
        print('skipped: numpy is not installed, and the other tests ran without it')
        sys.exit(77)
    support.main()
