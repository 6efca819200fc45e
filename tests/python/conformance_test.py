# SPDX-License-Identifier: Apache-2.0
"""What every language's binding promises: the same list of cases, one class each. tests/conformance has the list."""
import array
import ctypes
import gc
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

import session
import support
import wkv
from wkv import native

try:
    import numpy
except ImportError:
    numpy = None

GOLDEN_CASES = [name for name in ('len1', 'len7', 'len16', 'len33', 'len200', 'len1024')
                if support.GOLDEN and (support.GOLDEN[0] / f'rnd_a/golden/{name}.json').exists()]
OTHER_ORDER = '>' if sys.byteorder == 'little' else '<'


class LoadError(unittest.TestCase):
    def test_missing_file_is_file_not_found(self):
        with self.assertRaises(FileNotFoundError) as caught:
            wkv.Model('/no/such/file.pth')
        self.assertIsInstance(caught.exception, wkv.Error)
        self.assertEqual(caught.exception.code, -2)
        self.assertEqual(caught.exception.name, 'WKV_NOT_FOUND')
        self.assertIn('/no/such/file.pth', str(caught.exception))

    def test_damaged_file_is_a_format_error(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / 'short.gguf'
            path.write_bytes(support.STORY_MODEL.read_bytes()[:100000])
            with self.assertRaises(wkv.FormatError) as caught:
                wkv.Model(path)
            self.assertIsInstance(caught.exception, ValueError)

    def test_limit_is_a_memory_error(self):
        with self.assertRaises(MemoryError) as caught:
            wkv.Model(support.STORY_MODEL, device='cpu', memory_limit_bytes=1000)
        self.assertEqual(caught.exception.name, 'WKV_OUT_OF_MEMORY')


class GoldenLogits(unittest.TestCase):
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


class OptionsDefaults(unittest.TestCase):
    def test_of_a_model(self):
        with wkv.Model(support.STORY_MODEL, device='cpu') as model:
            self.assertEqual(model.info.threads, min(len(os.sched_getaffinity(0)), 256))
            self.assertEqual(model.info.chunk_tokens, 512)
            self.assertFalse(model.info.is_reproducible)
            self.assertEqual(model.memory.limit_bytes, 0)
            self.assertEqual(model.info.state_type, 1)
        with wkv.Model(support.STORY_MODEL, device='cpu', threads=1, chunk_tokens=16, reproducible=True,
                       memory_limit_bytes=10 ** 9) as model:
            self.assertEqual((model.info.threads, model.info.chunk_tokens, model.info.is_reproducible), (1, 16, True))
            self.assertEqual(model.memory.limit_bytes, 10 ** 9)

    def test_of_a_sampler(self):
        logits = array.array('f', [0.0, 5.0, 1.0, 4.0])
        plain, spelled = wkv.Sampler(), wkv.Sampler(temperature=1.0, seed=0, top_p=1.0)
        self.assertEqual([plain.sample(logits) for _ in range(50)], [spelled(logits) for _ in range(50)])

    def test_of_a_generation(self):
        self.assertEqual(len(list(support.story_model().generate('Once', ignore_end=True))), 256)


class Unicode(unittest.TestCase):
    NAMES = ('модель モデル 🦢', 'a b')

    def test_paths(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in self.NAMES:
                path = pathlib.Path(folder) / f'{name}.gguf'
                shutil.copy(support.STORY_MODEL, path)
                for kind in (str(path), path, os.fsencode(path)):
                    model = wkv.Model(kind, device='cpu')
                    self.assertEqual(model.info.layers, 8)
                state = pathlib.Path(folder) / f'{name}.wkv'
                model.cache().save(state)
                self.assertEqual(model.load_cache(state).position, 0)

    def test_text(self):
        tokenizer = wkv.Tokenizer.from_bytes(support.VOCABULARY)
        self.assertEqual(tokenizer.encode('ab🦢ж\0b'), [3, 4, 9, 8, 2])
        self.assertEqual(tokenizer.decode([3, 4, 9, 8, 2]), 'ab🦢ж\0b')
        self.assertEqual(tokenizer.decode_bytes([5, 1]), b'\xf0a')
        self.assertEqual(tokenizer.decode([5, 1]), '\ufffda')
        with self.assertRaises(UnicodeDecodeError):
            tokenizer.decode([5, 1], 'strict')

    def test_characters_stay_whole(self):
        decoder = wkv.Tokenizer.from_bytes(support.VOCABULARY).decoder()
        self.assertEqual([decoder.push(token) for token in (5, 6, 7, 1, 8, 5)], ['', '', '🦢', 'a', '\0', ''])
        self.assertEqual(decoder.finish(), '\ufffd')


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
        cache = self.model.cache()
        for items, error in (([(cache, [1]), (cache, [2])], ValueError),
                             ([(cache, [1]), (self.model.cache(), [9999])], ValueError), ([cache], TypeError),
                             ([(cache,)], TypeError), ([(3, [1])], TypeError), ([(cache, 'x')], TypeError), (5, TypeError)):
            with self.subTest(str(items)), self.assertRaises(error):
                self.model.step(items)
            self.assertEqual(cache.position, 0)
        with self.assertRaises(ValueError):
            self.model.step([(cache, [1])], samplers=[])
        self.assertEqual(len(self.model.step([])), 0)

    def test_a_failure_says_which_items_were_at_fault(self):
        good, twice, other = self.model.cache(), self.model.cache(), support.golden_model().cache()
        items = [(good, [1]), (other, [1]), (self.model.cache(), [9999]), (twice, [1]), (twice, [2])]
        for watched in ({}, {'progress': lambda done, total: None}):
            with self.assertRaises(wkv.MismatchError) as caught:
                self.model.step(items, **watched)
            faults = caught.exception.item_errors
            self.assertEqual({i: fault.name for i, fault in faults.items()},
                             {1: 'WKV_MISMATCH', 2: 'WKV_INVALID', 4: 'WKV_INVALID'})
            self.assertIsInstance(faults[2], wkv.InvalidError)
            self.assertEqual(str(faults[1]), str(caught.exception))
            self.assertEqual((good.position, twice.position), (0, 0))
        self.model.step([item for i, item in enumerate(items) if i not in faults])
        self.assertEqual((good.position, twice.position), (1, 1))
        with self.assertRaises(wkv.Error) as caught:
            good.step([9999])
        self.assertEqual(caught.exception.item_errors, {})  # no batch


class Busy(unittest.TestCase):
    def test_a_second_call_on_a_cache_is_refused(self):
        model = support.story_model()
        cache = model.cache()
        with support.stepping(self, cache):
            for call in (lambda: cache.step([1]), cache.copy, cache.mark, lambda: cache.position, cache.to_bytes,
                         lambda: next(model.generate('x', cache=cache)), lambda: model.step([(cache, [1])]),
                         lambda: cache.state_tensor(0)):
                with self.assertRaises(wkv.BusyError) as caught:
                    call()
                self.assertEqual(caught.exception.code, -7)
            repr(cache)  # never fails
        self.assertEqual(cache.position, 6000)


class Copy(support.Begun):
    def test_copies_go_their_own_ways(self):
        for _ in range(2):
            self.cache.copy().step([1, 2, 3])
            self.check(self.cache.copy())
        target = self.model.cache()
        target.assign(self.cache)
        self.check(target)
        self.check(self.cache)


class SaveRestore(support.Begun):
    def test_files(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / 'talk.wkv'
            self.cache.save(path)
            self.check(self.model.load_cache(path))
            self.check(wkv.Cache.load(self.model, os.fsencode(path)))
            header = wkv.read_header(path)
            self.assertEqual((header.position, header.fingerprint), (self.cache.position, self.model.info.fingerprint))
            self.cache.save(str(path), state_type='f16')
            self.assertLess(path.stat().st_size, 0.6 * header.bytes)
            path.write_bytes(path.read_bytes()[:-5])
            with self.assertRaises(wkv.FormatError):
                self.model.load_cache(path)
            with self.assertRaises(FileNotFoundError):
                self.cache.save(pathlib.Path(folder) / 'no folder' / 'x.wkv')
            with self.assertRaises(FileNotFoundError):
                self.model.load_cache(pathlib.Path(folder) / 'none.wkv')

    def test_bytes(self):
        data = self.cache.to_bytes()
        self.assertIsInstance(data, bytes)
        self.assertEqual(wkv.read_header(data).bytes, len(data))
        for form in (data, bytearray(data), memoryview(data)):
            self.check(self.model.cache_from_bytes(form))
        damaged = bytearray(data)
        damaged[len(data) // 2] ^= 1
        with self.assertRaises(wkv.FormatError):
            self.model.cache_from_bytes(damaged)
        with self.assertRaises(ValueError):
            self.model.cache_from_bytes(b'')
        for wrong in ('text', 3, [1, 2]):
            with self.assertRaises(TypeError):
                self.model.cache_from_bytes(wrong)


class SessionTravels(unittest.TestCase):
    def program(self, *arguments):
        done = subprocess.run([sys.executable, '-B', session.__file__, *map(str, arguments)], capture_output=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout.decode()

    def test_another_process_goes_on_with_the_same_words(self):
        whole = session.begun(wkv.Model(support.STORY_MODEL, device='cpu')).text()
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / 'сессия.wkv'
            first = self.program('begin', support.STORY_MODEL, path)
            rest = self.program('go_on', support.STORY_MODEL, path)
        self.assertGreater(len(first), 20)
        self.assertGreater(len(rest), 20)
        self.assertEqual(first + rest, whole)


class Cancellation(unittest.TestCase):
    def setUp(self):
        self.model = support.story_model()

    def test_of_a_load(self):
        with self.assertRaises(wkv.CancelledError) as caught:
            wkv.Model(support.STORY_MODEL, device='cpu', progress=lambda done, total: True)
        self.assertEqual(caught.exception.code, -8)

    def test_of_a_step(self):
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

    def test_of_a_generation_which_then_goes_on(self):
        calls = []

        def progress(done, total):
            calls.append(done)
            return len(calls) == 3

        generation = self.model.generate(prompt_tokens=[5] * 1200, max_tokens=2, progress=progress)
        with self.assertRaises(wkv.CancelledError):
            next(generation)
        self.assertEqual(generation.cache.position, 0)
        self.assertEqual(len(list(generation)), 2)


def everything():
    """One object of each class, with a model of its own."""
    model = wkv.Model(support.STORY_MODEL, device='cpu', threads=1)
    cache = model.cache()
    generation = model.generate('Once', cache=cache, max_tokens=5, temperature=1.0)
    return {'model': model, 'cache': cache, 'generation': generation, 'sampler': generation.sampler,
            'tokenizer': model.tokenizer, 'decoder': model.tokenizer.decoder(), 'store': model.prefix_store()}


class CloseTwice(unittest.TestCase):
    def test_is_fine(self):
        for name, thing in everything().items():
            thing.close()
            thing.close()
            self.assertTrue(thing.closed, name)
            self.assertIn('closed' if name != 'decoder' else 'Decoder', repr(thing))


class UseAfterClose(unittest.TestCase):
    def test_raises(self):
        things = everything()
        for thing in things.values():
            thing.close()
        model, cache, generation = things['model'], things['cache'], things['generation']
        open_model = support.story_model()
        for call in (model.cache, lambda: model.tokenizer, lambda: model.memory, lambda: model.step([]),
                     lambda: model.generate('x'), model.prefix_store, lambda: model.load_cache('x'),
                     lambda: wkv.Cache(model), lambda: cache.step([1]), cache.copy, cache.mark, cache.to_bytes,
                     lambda: cache.save('x'), lambda: cache.position, cache.park, lambda: cache.rollback(0),
                     lambda: cache.step([1], all_logits=True), lambda: cache.read_state(0), lambda: cache.state_tensor(0),
                     lambda: open_model.step([(cache, [1])]), lambda: open_model.generate('x', cache=cache),
                     lambda: next(generation), lambda: things['sampler'].sample(b''), lambda: things['sampler'].reset(),
                     lambda: open_model.generate('x', sampler=things['sampler']),
                     lambda: things['tokenizer'].encode('x'), lambda: things['decoder'].push(1),
                     lambda: things['store'].info, lambda: cache.__enter__(), lambda: wkv.Cache.select([cache], [0])):
            with self.assertRaises(wkv.ClosedError) as caught:
                call()
            self.assertIsInstance(caught.exception, ValueError)
        self.assertEqual(model.info.layers, 8)  # what is known stays known


class CloseDuringStep(unittest.TestCase):
    def test_of_a_cache(self):
        model = wkv.Model(support.STORY_MODEL, device='cpu', threads=2)
        cache = model.cache()
        with support.stepping(self, cache) as outcome:
            cache.close()
            model.close()
            gc.collect()
            with self.assertRaises(wkv.ClosedError):
                cache.step([1])
        self.assertEqual(len(support.numbers(outcome['result'])), 2048)

    def test_of_a_generation(self):
        model = wkv.Model(support.STORY_MODEL, device='cpu', threads=2)
        generation = model.generate(prompt_tokens=[5] * 6000, max_tokens=2)
        cache = generation.cache
        with support.running(next, generation) as outcome:
            support.wait_until(lambda: support.is_busy(cache) or outcome)
            for thing in (generation, cache, model):
                thing.close()
            del generation, cache, model, thing
            gc.collect()
        self.assertIn('result', outcome)


class CloseParentFirst(unittest.TestCase):
    def test_the_others_go_on(self):
        word = support.story_model().tokenizer.decode([1539])
        for first in ('model', 'cache', 'sampler', 'tokenizer'):
            things = everything()
            things['model'].close()
            things[first].close()
            gc.collect()
            if first != 'cache':
                things['cache'].step([1, 2])
                things['cache'].step([1, 2], all_logits=True)
                things['cache'].copy().step([3])
            self.assertEqual(things['decoder'].push(1539), word)
            self.assertEqual(len(list(things['generation'])), 5)
            things['store'].clear()


class _Refusal(unittest.TestCase):
    """Buffers that a step must not take: the cache is as before."""

    def setUp(self):
        self.model = support.story_model()
        self.width = self.model.vocab_size

    def refuse(self, error, tokens, *out, text=''):
        cache = self.model.cache()
        with self.assertRaisesRegex(error, text):
            cache.step(tokens, *out)
        self.assertEqual(cache.position, 0)


class BufferType(_Refusal):
    def test_of_tokens(self):
        self.refuse(TypeError, array.array('f', [1.0]), text='int32')
        self.refuse(TypeError, array.array('q', [1]), text='int32')
        self.refuse(TypeError, b'bytes', text='tokenizer')
        self.refuse(TypeError, 'text', text='tokenizer')
        self.refuse(TypeError, bytearray(8), text="'B'")
        self.refuse(TypeError, [1.5])
        self.refuse(TypeError, ['a'])
        self.refuse(TypeError, 1.5)
        self.refuse(TypeError, object())
        if numpy:
            self.refuse(TypeError, numpy.array([1, 2]), text='int32')

    def test_of_logits(self):
        self.refuse(TypeError, [1], array.array('d', bytes(8 * self.width)), text='float32')
        self.refuse(TypeError, [1], bytearray(4 * self.width), text='float32')
        self.refuse(TypeError, [1], [0.0] * self.width, text='float32')


class BufferOrder(_Refusal):
    def test_of_bytes(self):
        swapped = (ctypes.c_int32.__ctype_be__ if sys.byteorder == 'little' else ctypes.c_int32.__ctype_le__) * 2
        self.refuse(ValueError, swapped(1, 2), text='byte order')
        if numpy:
            self.refuse(ValueError, numpy.array([1], OTHER_ORDER + 'i4'), text='byte order')
            self.refuse(ValueError, [1], numpy.zeros(self.width, OTHER_ORDER + 'f4'), text='byte order')

    def test_of_numbers(self):
        self.refuse(ValueError, memoryview(array.array('i', range(1, 9)))[::2], text='contiguous')
        self.refuse(ValueError, [1], memoryview(bytearray(8 * self.width)).cast('f')[::2], text='contiguous')
        if numpy:
            self.refuse(ValueError, numpy.arange(8, dtype=numpy.int32)[::2], text='contiguous')
            self.refuse(ValueError, [1], numpy.zeros((self.width, 2), numpy.float32)[:, 0], text='contiguous')
            self.refuse(ValueError, [1], numpy.zeros((self.width // 2, 2), numpy.float32, order='F'), text='contiguous')


class BufferSize(_Refusal):
    def test_of_tokens(self):
        self.refuse(ValueError, [])
        self.refuse(ValueError, array.array('i'))

    def test_of_logits(self):
        self.refuse(ValueError, [1], array.array('f', bytes(4 * self.width - 4)), text=str(self.width - 1))
        self.refuse(ValueError, [1], array.array('f'))

    def test_of_a_state(self):
        cache = self.model.cache()
        for call in (cache.read_state, cache.write_state):
            with self.assertRaises(ValueError):
                call(0, 'wkv', array.array('f', [1.0]))


class ReadOnlyBuffer(_Refusal):
    def test_is_not_written(self):
        self.refuse(ValueError, [1], memoryview(bytes(4 * self.width)).cast('f'), text='read-only')
        if numpy:
            frozen = numpy.zeros(self.width, numpy.float32)
            frozen.flags.writeable = False
            self.refuse(ValueError, [1], frozen, text='read-only')

    def test_is_read(self):
        cache = self.model.cache()
        cache.step(memoryview(array.array('i', [1, 2])).toreadonly(), logits=False)
        self.assertEqual(cache.position, 2)


class NegativeCount(unittest.TestCase):
    def test_is_refused(self):
        model = support.story_model()
        cache = model.cache()
        for call in (lambda: wkv.Model(support.STORY_MODEL, device='cpu', threads=-1),
                     lambda: wkv.Model(support.STORY_MODEL, device='cpu', memory_limit_bytes=-1),
                     lambda: model.cache(checkpoint_every_tokens=-1), lambda: model.generate('x', max_tokens=-1),
                     lambda: model.generate('x', alternatives=-1), lambda: wkv.Sampler(top_k=-1),
                     lambda: model.prefix_store(memory_bytes_max=-1), lambda: cache.step([-1]),
                     lambda: cache.step(-2 ** 70), lambda: cache.step([2 ** 31]), lambda: cache.step([self.width()]),
                     lambda: cache.rollback(-1), lambda: cache.read_state(-1), lambda: cache.state_tensor(-1),
                     lambda: wkv.Cache.select([cache], [-1]), lambda: wkv.Cache.reorder([cache], [-1]),
                     lambda: model.tokenizer.decode([-1])):
            with self.assertRaises((ValueError, OverflowError, IndexError, TypeError)):
                call()
        self.assertEqual(cache.position, 0)

    @staticmethod
    def width():
        return support.story_model().vocab_size


class NullArguments(unittest.TestCase):
    def test_none_where_something_is_needed(self):
        model = support.story_model()
        cache = model.cache()
        for call in (lambda: wkv.Model(None), lambda: wkv.Cache(None), lambda: cache.step(None), lambda: model.step(None),
                     lambda: model.step([(None, [1])]), lambda: cache.assign(None), lambda: cache.write_state(0, 'wkv', None),
                     lambda: model.cache_from_bytes(None), lambda: model.load_session(None), lambda: cache.save(None),
                     lambda: model.tokenizer.encode(None), lambda: wkv.Sampler().sample(None), lambda: wkv.Tokenizer(None),
                     lambda: wkv.Generation(None, 'x')):
            with self.assertRaises((ValueError, TypeError)):
                call()
        self.assertEqual(cache.position, 0)

    def test_native_objects_survive_misuse(self):
        raw = support.story_model()._handle
        for call in (lambda: native.Cache.create(None, None), lambda: raw.get_info(None), lambda: raw.step(None),
                     lambda: native.Generation.create(None, None, None), lambda: native.Session.load(raw, None, None),
                     lambda: native.Cache.create(native.ModelOptions(), None), lambda: native.Cache(), lambda: native.Model(),
                     lambda: native.Session().save('x', None), lambda: native.Sampler.create(3),
                     lambda: native.Cache.read_header(None, None), lambda: native.Progress(),
                     lambda: native.Cache.select(None, None), lambda: native.Cache.reorder(([None], [0])),
                     lambda: raw.step([(None, [1], None, None, 2 ** 40)]), lambda: raw.step([(None, [1], None, None, 4)]),
                     lambda: raw.step([(None, [1], None, None, 'a')])):
            with self.assertRaises((wkv.Error, TypeError, ValueError, AttributeError, OverflowError)):
                call()
        self.assertIsNone(native.GenerationPiece().get_alternative(0))
        self.assertFalse(native.Session().get_logits(memoryview(bytearray(8)).cast('f')))
        self.assertEqual(native.GenerationPiece().get_text(), '')


class ForeignCache(unittest.TestCase):
    def test_is_refused(self):
        model, other = support.story_model(), support.golden_model()
        cache, foreign = model.cache(), other.cache()
        for call in (lambda: model.step([(cache, [1]), (foreign, [1])]), lambda: cache.assign(foreign),
                     lambda: wkv.Cache.reorder([cache, foreign], [1, 0]), lambda: other.cache_from_bytes(cache.to_bytes()),
                     lambda: model.prefix_store().find([1, 2], foreign)):
            with self.assertRaises(wkv.MismatchError) as caught:
                call()
            self.assertEqual(caught.exception.code, -9)
        self.assertEqual((cache.position, foreign.position), (0, 0))


@unittest.skipUnless(os.path.exists('/proc/self/statm'), 'memory is read from /proc')
class FlatMemory(unittest.TestCase):
    def flat(self, function, rounds, allowed):
        for _ in range(rounds // 10):
            function()
        gc.collect()
        before = support.resident_bytes()
        for _ in range(rounds):
            function()
        gc.collect()
        grown = support.resident_bytes() - before
        print(f'{rounds} rounds: {grown / 1024:+.0f} KiB', file=sys.stderr)
        self.assertLess(grown, allowed)

    def test_ten_thousand_caches(self):
        model = support.story_model()
        self.flat(lambda: model.cache().close(), 10000, 2 << 20)

    def test_every_object(self):
        model, base = support.story_model(), support.story_model().cache()
        base.step([1, 2, 3])

        def once():
            generation = model.generate('Once', cache=base.copy(), max_tokens=1, temperature=1.0, stop=['x', 'y'],
                                        alternatives=2, stop_tokens=[7])
            next(generation)
            wkv.Session(generation=generation).to_bytes()
            model.tokenizer.decode(model.tokenizer.encode('Once'))
            model.tokenizer.decoder().push(5)
            model.step([(base.copy(), [1])], samplers=[generation.sampler])
            wkv.Cache.select([base, base], [0, 1])
            base.state_tensor(0).__dlpack__()
            base.info, model.memory, base.kept_positions

        self.flat(once, 1000, 2 << 20)

    def test_failures(self):
        model, cache = support.story_model(), support.story_model().cache()

        def once():
            for call in (lambda: cache.step([99999]), lambda: cache.step('a'), lambda: cache.rollback(7),
                         lambda: wkv.Model('/no/such/file'), lambda: model.generate('x', stop=['']),
                         lambda: model.cache_from_bytes(b'abc'), lambda: model.step([(cache, [1]), (cache, [1])])):
                try:
                    call()
                except (wkv.Error, TypeError):
                    pass

        self.flat(once, 2000, 2 << 20)

    def test_models(self):
        self.flat(lambda: wkv.Model(support.STORY_MODEL, device='cpu', threads=2).cache().step([1]), 100, 8 << 20)


class GcStress(unittest.TestCase):
    def test_threads_make_and_forget_objects(self):
        model, old = support.story_model(), gc.get_threshold()
        gc.set_threshold(10)
        failures = []

        def work(seed):
            chance = random.Random(seed)
            caches = [model.cache()]
            try:
                for _ in range(150):
                    cache = chance.choice(caches)
                    what = chance.randrange(7)
                    if what == 0:
                        caches.append(cache.copy())
                    elif what == 1:
                        cache.step([chance.randrange(1, 2000) for _ in range(chance.randrange(1, 4))])
                    elif what == 2:
                        caches.append(model.cache_from_bytes(cache.to_bytes()))
                    elif what == 3:
                        caches.append(model.generate('a', cache=cache.copy(), max_tokens=2, temperature=1.0).cache)
                    elif what == 4:
                        next(model.generate('a', cache=cache, max_tokens=2))
                    elif what == 5:
                        cache.itself = cache
                        caches = caches[-6:]
                    else:
                        model.step([(one, [3]) for one in set(caches[:3])])
            except BaseException as error:
                failures.append(error)

        try:
            threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            gc.set_threshold(*old)
        gc.collect()
        self.assertEqual(failures, [])


if __name__ == '__main__':
    support.main()
