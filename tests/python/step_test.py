# SPDX-License-Identifier: Apache-2.0
"""Steps: golden logits, batches, every kind of buffer and every wrong one."""
import array
import ctypes
import sys
import unittest

import support
import wkv

try:
    import numpy
except ImportError:
    numpy = None

GOLDEN_CASES = [name for name in ('len1', 'len7', 'len16', 'len33', 'len200', 'len1024')
                if support.GOLDEN and (support.GOLDEN[0] / f'rnd_a/golden/{name}.json').exists()]


class Golden(unittest.TestCase):
    def test_step_gives_the_golden_logits(self):
        model = support.golden_model()
        self.assertIn('len7', GOLDEN_CASES)
        for name in GOLDEN_CASES:
            with self.subTest(name):
                golden = support.golden_case(name)
                logits = support.numbers(model.cache().step(golden['tokens']))
                worst = max(abs(a - b) for a, b in zip(logits, golden['logits_last']))
                self.assertLessEqual(worst, support.allowed_error(name, golden['logits_last']))

    def test_batch_gives_the_golden_logits(self):
        model = support.golden_model()
        cases = [support.golden_case(name) for name in GOLDEN_CASES]
        rows = model.step([(model.cache(), case['tokens']) for case in cases])
        self.assertEqual(len(rows), len(cases))
        for name, case, row in zip(GOLDEN_CASES, cases, rows):
            worst = max(abs(a - b) for a, b in zip(support.numbers(row), case['logits_last']))
            self.assertLessEqual(worst, support.allowed_error(name, case['logits_last']), name)

    def test_all_logits_and_state_have_the_golden_values(self):
        model, golden = support.golden_model(), support.golden_case('len7')
        cache = model.cache()
        rows = support.numbers(cache.step(golden['tokens'], all_logits=True))
        self.assertEqual(len(rows), 7 * model.vocab_size)
        allowed = 4 * support.allowed_error('len7', golden['logits_all'])
        self.assertLessEqual(max(abs(a - b) for a, b in zip(rows, golden['logits_all'])), allowed)
        states = [x for layer in range(model.info.layers) for x in support.numbers(cache.read_state(layer, 'wkv'))]
        self.assertLessEqual(max(abs(a - b) for a, b in zip(states, golden['state_wkv'])), 1e-4)


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

    def refuse(self, error, tokens, *out, text=''):
        cache = self.model.cache()
        with self.assertRaisesRegex(error, text):
            cache.step(tokens, *out)
        self.assertEqual(cache.position, 0)

    def test_wrong_tokens(self):
        self.refuse(TypeError, array.array('f', [1.0]), text='int32')
        self.refuse(TypeError, array.array('q', [1]), text='int32')
        self.refuse(TypeError, b'bytes', text='tokenizer')
        self.refuse(TypeError, 'text', text='tokenizer')
        self.refuse(TypeError, bytearray(8), text="'B'")
        self.refuse(TypeError, [1.5])
        self.refuse(TypeError, ['a'])
        self.refuse(TypeError, 1.5)
        self.refuse(TypeError, object())
        self.refuse(ValueError, [2 ** 31], text='int32')
        self.refuse(ValueError, -2 ** 70, text='int32')
        self.refuse(ValueError, [2048], text='2048')
        self.refuse(ValueError, [-1])
        self.refuse(ValueError, [])
        self.refuse(ValueError, None)
        self.refuse(ValueError, array.array('i', range(1, 9)).__getitem__(slice(0, 0)))
        self.refuse(ValueError, memoryview(array.array('i', range(1, 9)))[::2], text='contiguous')
        other = '>' if sys.byteorder == 'little' else '<'
        if numpy:
            self.refuse(ValueError, numpy.array([1], other + 'i4'), text='byte order')
            self.refuse(TypeError, numpy.array([1, 2]), text='int32')
            self.refuse(ValueError, numpy.arange(8, dtype=numpy.int32)[::2], text='contiguous')
        swapped = (ctypes.c_int32.__ctype_be__ if sys.byteorder == 'little' else ctypes.c_int32.__ctype_le__) * 2
        self.refuse(ValueError, swapped(1, 2), text='byte order')

    def test_wrong_room_for_logits(self):
        width = self.model.vocab_size
        self.refuse(TypeError, [1], array.array('d', bytes(8 * width)), text='float32')
        self.refuse(TypeError, [1], bytearray(4 * width), text='float32')
        self.refuse(TypeError, [1], [0.0] * width, text='float32')
        self.refuse(ValueError, [1], array.array('f', bytes(4 * width - 4)), text=str(width - 1))
        self.refuse(ValueError, [1], array.array('f'))
        self.refuse(ValueError, [1], memoryview(bytes(4 * width)).cast('f'), text='read-only')
        self.refuse(ValueError, [1], memoryview(bytearray(8 * width)).cast('f')[::2], text='contiguous')
        if numpy:
            frozen = numpy.zeros(width, numpy.float32)
            frozen.flags.writeable = False
            self.refuse(ValueError, [1], frozen, text='read-only')
            self.refuse(ValueError, [1], numpy.zeros(width, '>f4' if sys.byteorder == 'little' else '<f4'),
                        text='byte order')
            self.refuse(ValueError, [1], numpy.zeros((width, 2), numpy.float32)[:, 0], text='contiguous')
            self.refuse(ValueError, [1], numpy.zeros((width // 2, 2), numpy.float32, order='F'), text='contiguous')

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


class Batch(unittest.TestCase):
    def setUp(self):
        self.model = support.story_model()

    def test_rows_are_those_of_single_steps(self):
        texts = ['Once upon', 'The', 'There was a king who had three']
        tokens = [self.model.tokenizer.encode(text) for text in texts]
        alone = [support.numbers(self.model.cache().step(ids)) for ids in tokens]
        rows = self.model.step([(self.model.cache(), ids) for ids in tokens])
        for row, single in zip(rows, alone):
            self.assertLess(max(abs(a - b) for a, b in zip(support.numbers(row), single)), 1e-3)

    def test_samplers_choose(self):
        caches = [self.model.cache() for _ in range(2)]
        chosen = self.model.step([(cache, [326]) for cache in caches], samplers=[wkv.Sampler(greedy=True)] + [None])
        logits = support.numbers(self.model.cache().step([326]))
        self.assertEqual(chosen, [max(range(len(logits)), key=lambda i: logits[i]), None])

    def test_wrong_items_change_nothing(self):
        cache, other = self.model.cache(), support.golden_model().cache()
        for items, error in (([(cache, [1]), (cache, [2])], ValueError), ([(cache, [1]), (other, [2])], wkv.MismatchError),
                             ([(cache, [1]), (self.model.cache(), [9999])], ValueError), ([cache], TypeError),
                             ([(cache,)], TypeError), ([(None, [1])], ValueError), ([(3, [1])], TypeError),
                             ([(cache, 'x')], TypeError), (5, TypeError)):
            with self.subTest(str(items)), self.assertRaises(error):
                self.model.step(items)
            self.assertEqual(cache.position, 0)
        with self.assertRaises(ValueError):
            self.model.step([(cache, [1])], samplers=[])
        self.assertEqual(len(self.model.step([])), 0)

    def test_progress_and_cancellation(self):
        seen, cache = [], self.model.cache()
        cache.step([5] * 1200, progress=lambda done, total: seen.append((done, total)))
        self.assertEqual(seen[-1], (1200, 1200))
        fork = cache.copy()
        with self.assertRaises(wkv.CancelledError):
            cache.step([5] * 1200, progress=lambda done, total: True)
        self.assertEqual(cache.position, 1200)
        self.assertEqual(support.numbers(cache.step(3)), support.numbers(fork.step(3)))

        def fail(done, total):
            raise OSError('mine')

        with self.assertRaisesRegex(OSError, 'mine'):
            cache.step([5] * 1200, progress=fail)
        self.assertEqual(cache.position, 1201)

    def test_kept_states_of_drafted_tokens(self):
        cache = self.model.cache()
        cache.step([1, 2, 3, 4], keep_states=True, all_logits=True)
        cache.rollback(2)
        self.assertEqual(cache.position, 2)
        fresh = self.model.cache()
        fresh.step([1, 2])
        self.assertLess(max(abs(a - b) for a, b in zip(support.numbers(cache.step(9)), support.numbers(fresh.step(9)))), 1e-3)


if __name__ == '__main__':
    support.main()
