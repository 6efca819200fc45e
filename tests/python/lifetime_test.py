# SPDX-License-Identifier: Apache-2.0
"""Lifetimes: closing early, or while other threads call; what is forgotten goes."""
import gc
import unittest
import weakref

import support
import wkv


class Closing(unittest.TestCase):
    def test_closing_the_model_frees_it_with_its_last_cache(self):
        model = wkv.Model(support.STORY_MODEL, device='cpu', threads=1)
        cache = model.cache()
        before = model.memory.caches_bytes
        cache.close()
        self.assertLess(model.memory.caches_bytes, before)

    def test_close_races_with_calls(self):
        model = support.story_model()
        for _ in range(60):
            cache = model.cache()

            def use():
                try:
                    for _ in range(20):
                        cache.step([1], logits=False)
                except (wkv.ClosedError, wkv.BusyError):
                    pass

            with support.running(use) as one, support.running(use) as two:
                cache.close()
            self.assertNotIn('error', {**one, **two})


class Collecting(unittest.TestCase):
    def test_forgotten_objects_go(self):
        model = wkv.Model(support.STORY_MODEL, device='cpu', threads=1)
        cache, seen = model.cache(), weakref.ref(model)
        generation = model.generate('Once', cache=cache)
        next(generation)
        del model, cache, generation
        gc.collect()
        self.assertIsNone(seen())

    def test_cycles_go(self):
        model = support.story_model()
        before = model.memory.caches_bytes
        for _ in range(50):
            cache = model.cache()
            cache.itself = [cache]
        del cache
        gc.collect()
        self.assertEqual(model.memory.caches_bytes, before)

if __name__ == '__main__':
    support.main()
