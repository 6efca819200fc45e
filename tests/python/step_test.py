# SPDX-License-Identifier: Apache-2.0
"""Steps: every kind of buffer, one that changes during the call, states after each drafted token."""
import array
import ctypes
import unittest

import support

try:
    import numpy
except ImportError:
    numpy = None


class Buffers(unittest.TestCase):
    def setUp(self):
        self.model = support.story_model()
        self.tokens = [1539, 326, 712, 259, 519]
        self.expected = support.numbers(self.model.cache().step(self.tokens))

    def check(self, tokens):
        self.assertEqual(support.numbers(self.model.cache().step(tokens)), self.expected)

    def test_tokens_from_anything(self):
        ints = array.array('i', self.tokens)
        self.check(tuple(self.tokens))
        self.check(ints)
        self.check(memoryview(ints))
        self.check(memoryview(ints).toreadonly())
        self.check((ctypes.c_int32 * 5)(*self.tokens))
        self.check(memoryview(ints.tobytes()).cast('i'))
        if numpy:
            self.check(numpy.array(self.tokens, numpy.int32))
            self.check(list(numpy.array(self.tokens)))
            self.check(numpy.array(self.tokens * 2, numpy.int32)[:5])

    def test_one_token(self):
        one = support.numbers(self.model.cache().step([326]))
        self.assertEqual(support.numbers(self.model.cache().step(326)), one)

    def test_logits_go_where_they_should(self):
        width = self.model.vocab_size
        rooms = [array.array('f', bytes(4 * width)), memoryview(bytearray(4 * width)).cast('f'),
                 (ctypes.c_float * width)()]
        if numpy:
            rooms += [numpy.empty(width, numpy.float32), numpy.empty((4, width), numpy.float32)[2]]
        for room in rooms:
            cache = self.model.cache()
            self.assertIs(cache.step(self.tokens, room), room)
            self.assertEqual(support.numbers(room), self.expected)

    def test_no_logits(self):
        cache = self.model.cache()
        self.assertIsNone(cache.step(self.tokens[:-1], logits=False))
        self.assertEqual(cache.position, 4)

    @unittest.skipUnless(numpy, 'numpy is not installed')
    def test_numpy_logits(self):
        logits = self.model.cache().step(self.tokens)
        self.assertIsInstance(logits, numpy.ndarray)
        self.assertEqual((logits.dtype, logits.shape), (numpy.float32, (self.model.vocab_size,)))
        cache = self.model.cache()
        batch = self.model.step([(cache, self.tokens), (cache.copy(), [5])])
        self.assertEqual((batch.dtype, batch.shape), (numpy.float32, (2, self.model.vocab_size)))
        self.assertEqual(cache.step([1, 2, 3], all_logits=True).shape, (3, self.model.vocab_size))
        self.assertEqual(cache.read_state(0, 'wkv').shape, (4, 64, 64))
        self.assertEqual(cache.read_state(0, 'att_shift').shape, (256,))

    def test_a_list_that_shrinks_while_it_is_read(self):
        numbers = []

        class Sly:
            def __index__(self):
                del numbers[1:]
                return 1

        numbers += [Sly(), 2, 3, 4]
        cache = self.model.cache()
        cache.step(numbers)
        self.assertEqual(cache.position, 1)

    def test_a_buffer_cannot_be_resized_during_a_call(self):
        cache = self.model.cache()
        tokens = array.array('i', [5]) * 6000
        logits = array.array('f', bytes(4 * self.model.vocab_size))
        with support.stepping(self, cache, tokens, logits):
            with self.assertRaises(BufferError):
                tokens.append(1)
            with self.assertRaises(BufferError):
                logits.append(1.0)
        tokens.append(1)  # free again
        logits.append(1.0)
        with self.assertRaises(ValueError):
            cache.step([99999], logits)
        logits.append(1.0)  # after a failure as well

    def test_state_buffers(self):
        cache = self.model.cache()
        cache.step(self.tokens)
        values = cache.read_state(2, 'wkv')
        fork = self.model.cache()
        fork.write_state(2, 'wkv', values)
        self.assertEqual(support.numbers(fork.read_state(2, 2)), support.numbers(values))
        for wrong, error in ((array.array('f', [1.0]), ValueError), (array.array('d', bytes(8)), TypeError),
                             (None, ValueError)):
            with self.assertRaises(error):
                fork.write_state(2, 'wkv', wrong)
        with self.assertRaises(ValueError):
            fork.read_state(8)
        with self.assertRaises(ValueError):
            fork.read_state(0, 'no part')
        with self.assertRaises(ValueError):
            fork.write_state(0, 'att_shift', array.array('f', [float('nan')] * 256))
        whole = cache.export_state('fla')
        fork.import_state(whole, 5, 'fla')
        self.assertEqual(support.numbers(fork.step(7)), support.numbers(cache.step(7)))


class Drafts(unittest.TestCase):
    def test_kept_states_of_drafted_tokens(self):
        model = support.story_model()
        cache = model.cache()
        cache.step([1, 2, 3, 4], keep_states=True, all_logits=True)
        cache.rollback(2)
        self.assertEqual(cache.position, 2)
        fresh = model.cache()
        fresh.step([1, 2])
        self.assertLess(max(abs(a - b) for a, b in zip(support.numbers(cache.step(9)), support.numbers(fresh.step(9)))), 1e-3)


if __name__ == '__main__':
    support.main()
