# SPDX-License-Identifier: Apache-2.0
"""Caches: forks, marks, files, pickles, pictures, prefix stores."""
import copy
import pathlib
import pickle
import subprocess
import sys
import tempfile
import unittest

import support
import wkv


class State(support.Begun):
    def test_the_copy_module_makes_forks(self):
        for fork in (copy.copy(self.cache), copy.deepcopy(self.cache)):
            self.assertEqual(fork.position, self.cache.position)
            self.check(fork)

    def test_select_and_reorder(self):
        empty = self.model.cache()
        caches = wkv.Cache.select([self.cache, empty], [1, 0, 0])
        self.assertEqual([cache.position for cache in caches], [0, self.cache.position, self.cache.position])
        wkv.Cache.reorder(caches, [1, 1, 0])
        self.assertEqual([cache.position for cache in caches], [self.cache.position, self.cache.position, 0])
        self.check(caches[0])
        for wrong, error in (([5], ValueError), ([-1], IndexError), (['a'], TypeError), (3, TypeError)):
            with self.assertRaises(error):
                wkv.Cache.select([self.cache], wrong)
        for sources in ([0], [7, 7, 7]):
            with self.assertRaises(ValueError):
                wkv.Cache.reorder(caches, sources)
        with self.assertRaises(ValueError):
            wkv.Cache.reorder([empty, empty], [0, 0])

    def test_marks_and_rollback(self):
        here = self.cache.mark()
        self.assertEqual(here, self.cache.position)
        self.cache.step([1, 2, 3])
        self.assertEqual(self.cache.kept_positions, [here])
        self.cache.rollback(here)
        self.check(self.cache.copy())
        with self.assertRaises(LookupError) as caught:
            self.cache.rollback(1)
        self.assertEqual(caught.exception.name, 'WKV_NOT_FOUND')
        self.assertEqual(self.cache.position, here)
        self.cache.unmark(here)
        self.assertEqual(self.cache.kept_positions, [])
        for wrong, error in ((-1, (OverflowError, TypeError)), ('a', TypeError), (2 ** 64, (OverflowError, TypeError))):
            with self.assertRaises(error):
                self.cache.rollback(wrong)

    def test_checkpoints_by_itself(self):
        cache = self.model.cache(checkpoint_every_tokens=4, checkpoints_count_max=2)
        for _ in range(13):
            cache.step([5], logits=False)
        self.assertEqual(cache.kept_positions, [8, 12])

    def test_park_and_reset(self):
        self.cache.park()
        self.check(self.cache.copy())
        self.cache.reset()
        self.assertEqual(self.cache.position, 0)

    def test_info(self):
        info = self.cache.info
        self.assertEqual(info.last_tokens[-1], info.last_token)
        self.assertEqual(self.cache.last_tokens, info.last_tokens)
        self.assertEqual(self.cache.nbytes, self.model.info.state_bytes)
        self.assertIsNone(self.cache.check())

    def test_pickle(self):
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            self.check(pickle.loads(pickle.dumps(self.cache, protocol)))
        with wkv.Model(support.STORY_MODEL, device='cpu', threads=1) as another, another.unpickling():
            self.assertIs(pickle.loads(pickle.dumps(self.cache)).model, another)
        for thing in (self.model, wkv.Sampler(), self.model.tokenizer):
            with self.assertRaises(TypeError):
                pickle.dumps(thing)

    def test_pickle_needs_its_model(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / 'cache.pickle'
            path.write_bytes(pickle.dumps(self.cache))
            program = f'import pickle, wkv\ndata = open({str(path)!r}, "rb").read()\n'
            done = subprocess.run([sys.executable, '-c', program + 'pickle.loads(data)'], capture_output=True, text=True)
            self.assertIn('LookupError: a pickled cache needs its model', done.stderr)
            program += f'model = wkv.Model({str(support.STORY_MODEL)!r})\nprint(pickle.loads(data).position)'
            done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
            self.assertEqual(done.stdout.strip(), str(self.cache.position), done.stderr)

    def test_pictures(self):
        html = self.cache._repr_html_()
        self.assertIn('data:image/png;base64,', html)
        self.assertIn('8 layers down, 4 heads across', html)
        self.assertIn('data:image/png', self.model.cache()._repr_html_())
        cache = self.cache.copy()
        cache.close()
        self.assertIn('closed', cache._repr_html_())

    def test_repr(self):
        self.assertRegex(repr(self.cache), r'<wkv.Cache at \d+: .*B on cpu')

    def test_initial_state_errors(self):
        with self.assertRaises(FileNotFoundError):
            self.model.initial_state('/no/such/state.pth')
        with self.assertRaises(TypeError):
            self.model.cache(initial_state=self.cache)


class Store(unittest.TestCase):
    def test_a_prompt_is_read_once(self):
        model = support.story_model()
        prompt = model.tokenizer.encode('There was once a miller who had a daughter, and she was so clever that ' * 2)
        with tempfile.TemporaryDirectory() as folder:
            store = model.prefix_store(directory=folder, memory_bytes_max=10 ** 7)
            cache = model.cache()
            self.assertEqual(store.find(prompt, cache), 0)
            cache.step(prompt)
            store.put(prompt, cache)
            fresh = model.cache()
            self.assertEqual(store.find(prompt + [5], fresh), len(prompt))
            self.assertEqual(support.numbers(fresh.step([5])), support.numbers(cache.step([5])))
            generation = model.generate(prompt_tokens=prompt + [7], max_tokens=3, prefix_store=store)
            generation.text()
            self.assertEqual(generation.reused_tokens, len(prompt))
            self.assertGreaterEqual(store.info.hits, 2)
            self.assertIn('entries', repr(store))
            with self.assertRaises(ValueError):
                store.put(prompt, model.cache())
            store.clear()
            self.assertEqual(store.info.entries, 0)
            with self.assertRaises(wkv.MismatchError):
                store.find(prompt, support.golden_model().cache())


if __name__ == '__main__':
    support.main()
