# SPDX-License-Identifier: Apache-2.0
"""What the tests share: models, golden files, other threads."""
import array
import contextlib
import json
import os
import pathlib
import sys
import threading
import time
import unittest

import wkv

ROOT = pathlib.Path(__file__).resolve().parents[2]
STORY_MODEL = ROOT / 'examples/models/tales-8m.gguf'
SHARED = pathlib.Path(os.environ.get('WKV_SHARED_DIR', ROOT.parent / 'shared'))
GOLDEN = [path for path in (SHARED / 'golden', ROOT / 'tests/data') if (path / 'rnd_a/golden').is_dir()]

# a small vocabulary with tokens that are parts of a character
VOCABULARY = (b"1 'a' 1\n2 'b' 1\n3 'ab' 2\n4 '\xf0\x9f\xa6\xa2' 4\n5 b'\\xf0' 1\n6 b'\\x9f\\xa6' 2\n7 b'\\xa2' 1\n"
              b"8 b'\\x00' 1\n9 '\xd0\xb6' 2\n")

_models = {}


def story_model():
    """The embedded model, loaded once a process. Tests that close a model load their own."""
    if 'story' not in _models:
        _models['story'] = wkv.Model(STORY_MODEL, device='cpu', threads=2)
    return _models['story']


def golden_model(name='rnd_a.bf16.pth', model='rnd_a'):
    return wkv.Model(GOLDEN[0] / model / 'weights' / name, device='cpu', threads=2)


def golden_case(name, model='rnd_a'):
    """The arrays of a golden case as lists, 'logits_all' as rows."""
    folder = GOLDEN[0] / model / 'golden'
    meta = json.loads((folder / f'{name}.json').read_text())
    data, arrays = (folder / meta['bin']).read_bytes(), {}
    for entry in meta['arrays']:
        count = 1
        for size in entry['shape']:
            count *= size
        numbers = array.array({'f32': 'f', 'i32': 'i'}.get(entry['dtype'], 'd'))
        end = entry['offset'] + count * numbers.itemsize
        numbers.frombytes(data[entry['offset']:end])
        if sys.byteorder != 'little':
            numbers.byteswap()
        arrays[entry['name']] = numbers.tolist()
    return arrays


def allowed_error(name, golden, model='rnd_a'):
    """As tests/support/golden.h has it: four times what a plain float32 run was off, and two roundings."""
    noise = json.loads((ROOT / 'tests/data/fp32_noise.json').read_text())['cases'][f'{model}/{name}']
    return 4 * noise['logits'] + 2.0 ** -22 * max(map(abs, golden))


def numbers(floats):
    """Logits as a list, whether numpy is there or not."""
    return memoryview(floats).cast('B').cast('f').tolist()


class Begun(unittest.TestCase):
    """For tests of a cache that has read something, and what it would say next."""

    def setUp(self):
        self.model = story_model()
        self.cache = self.model.cache()
        self.cache.step(self.model.tokenizer.encode('There was a king who had three'))
        self.next = numbers(self.cache.copy().step([500]))

    def check(self, cache):
        """Whether another cache goes on as this one would."""
        self.assertEqual(numbers(cache.step([500])), self.next)


@contextlib.contextmanager
def running(function, *arguments):
    """Runs a function in another thread for the block; its result or exception is in the dictionary given."""
    outcome = {}

    def run():
        try:
            outcome['result'] = function(*arguments)
        except BaseException as error:  # is looked at by the test
            outcome['error'] = error

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield outcome
    finally:
        thread.join()


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError('it did not happen')


def is_busy(cache):
    try:
        cache.info
        return False
    except wkv.BusyError:
        return True


@contextlib.contextmanager
def stepping(test, cache, tokens=None, logits=None):
    """For the block, another thread steps this cache, long enough for anything that the block tries."""
    start = time.monotonic()
    with running(cache.step, [5] * 6000 if tokens is None else tokens, logits) as outcome:
        wait_until(lambda: is_busy(cache) or outcome)
        if outcome and time.monotonic() - start > 0.1:
            test.fail('this thread could not run during the step of another')
        if outcome:
            test.skipTest('the step was over at once')
        yield outcome
    if 'error' in outcome:
        raise outcome['error']


def resident_bytes():
    return int(pathlib.Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def main():
    """Runs the tests of a file; 77, which ctest shows as skipped, when every one of them was skipped."""
    program = unittest.main(module='__main__', exit=False, verbosity=2)
    result = program.result
    if not result.wasSuccessful():
        sys.exit(1)
    if not result.testsRun or len(result.skipped) < result.testsRun:
        sys.exit(0)
    print(f'skipped: {result.skipped[0][1]}')
    sys.exit(77)
