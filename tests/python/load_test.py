# SPDX-License-Identifier: Apache-2.0
"""Models: wrong options, progress, devices, plans."""
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest

import support
import wkv


class Load(unittest.TestCase):
    def test_wrong_arguments(self):
        for wrong, error in (({'weight_type': 'f17'}, ValueError), ({'threads': -1}, ValueError),
                             ({'threads': 'two'}, TypeError), ({'threads': 2 ** 40}, (OverflowError, ValueError)),
                             ({'device': 'toaster'}, wkv.Error), ({'kernels': 'none'}, FileNotFoundError),
                             ({'memory_limit_bytes': -1}, (OverflowError, TypeError)), ({'chunk_tokens': 5000}, ValueError),
                             ({'progress': 'yes'}, TypeError), ({'no_such_option': 1}, TypeError)):
            with self.subTest(wrong), self.assertRaises(error):
                wkv.Model(support.STORY_MODEL, **wrong)
        for path in (None, 3, 'a\0b', [], b''):
            with self.subTest(path), self.assertRaises((TypeError, ValueError, wkv.Error)):
                wkv.Model(path)

    def test_progress_rises_to_the_end(self):
        seen = []
        wkv.Model(support.STORY_MODEL, device='cpu', progress=lambda done, total: seen.append((done, total)))
        self.assertEqual(seen, sorted(seen))
        self.assertEqual(seen[-1][0], seen[-1][1])

    def test_exception_in_progress_comes_out(self):
        def fail(done, total):
            raise KeyError('mine')

        with self.assertRaisesRegex(KeyError, 'mine'):
            wkv.Model(support.STORY_MODEL, device='cpu', progress=fail)

    def test_progress_bar(self):
        done = subprocess.run([sys.executable, '-c', f'import wkv; wkv.Model({str(support.STORY_MODEL)!r}, '
                               'device="cpu", progress=True)'], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('100', done.stderr)

    def test_other_threads_run_during_a_load(self):
        # a thread that counts gets to run while the file is read: progress comes from inside the call
        counted, stop = [0], threading.Event()

        def count():
            while not stop.is_set():
                counted[0] += 1

        with support.running(count):
            wkv.Model(support.STORY_MODEL, device='cpu', weight_type='f32')
            stop.set()
        self.assertGreater(counted[0], 0)

    def test_devices_and_plan(self):
        devices = wkv.devices()
        self.assertEqual(devices[0].name, 'cpu')
        self.assertTrue(devices[0].is_usable)
        self.assertGreaterEqual(len(devices), 2)
        plan = wkv.plan_memory(support.STORY_MODEL, caches_count=10, device='cpu')
        self.assertEqual(plan.caches_bytes, 10 * plan.state_bytes)

    def test_convert(self):
        with tempfile.TemporaryDirectory() as folder:
            target = pathlib.Path(folder) / 'out.gguf'
            wkv.convert(support.STORY_MODEL, target, weight_type='f16', name='история')
            self.assertEqual(wkv.Model(target, device='cpu').info.stored_types, 'F16')

    def test_repr_says_what_it_is(self):
        model = wkv.Model(support.STORY_MODEL, device='cpu')
        for part in ('tales-8m.gguf', '8 layers', 'cpu'):
            self.assertIn(part, repr(model))
        model.close()
        self.assertIn('closed', repr(model))

    def test_with_block_closes(self):
        with wkv.Model(support.STORY_MODEL, device='cpu') as model:
            self.assertFalse(model.closed)
        self.assertTrue(model.closed)
        with self.assertRaises(wkv.ClosedError):
            model.cache()


if __name__ == '__main__':
    support.main()
