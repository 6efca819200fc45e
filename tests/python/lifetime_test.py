# SPDX-License-Identifier: Apache-2.0
"""Lifetimes: closing twice, early, in the middle of a call, in any order; garbage collection; flat memory."""
import gc
import os
import random
import sys
import threading
import unittest
import weakref

import support
import wkv


def everything():
    """One object of each class, with a model of its own."""
    model = wkv.Model(support.STORY_MODEL, device='cpu', threads=1)
    cache = model.cache()
    generation = model.generate('Once', cache=cache, max_tokens=5, temperature=1.0)
    return {'model': model, 'cache': cache, 'generation': generation, 'sampler': generation.sampler,
            'tokenizer': model.tokenizer, 'decoder': model.tokenizer.decoder(), 'store': model.prefix_store()}


class Closing(unittest.TestCase):
    def test_twice_is_fine(self):
        for name, thing in everything().items():
            thing.close()
            thing.close()
            self.assertTrue(thing.closed, name)
            self.assertIn('closed' if name != 'decoder' else 'Decoder', repr(thing))

    def test_use_after_close_raises(self):
        things = everything()
        for thing in things.values():
            thing.close()
        model, cache, generation = things['model'], things['cache'], things['generation']
        open_model = support.story_model()
        for call in (model.cache, lambda: model.tokenizer, lambda: model.memory, lambda: model.step([]),
                     lambda: model.generate('x'), model.prefix_store, lambda: model.load_cache('x'),
                     lambda: wkv.Cache(model), lambda: cache.step([1]), cache.copy, cache.mark, cache.to_bytes,
                     lambda: cache.save('x'), lambda: cache.position, cache.park, lambda: cache.rollback(0),
                     lambda: cache.step([1], all_logits=True), lambda: cache.read_state(0),
                     lambda: open_model.step([(cache, [1])]), lambda: open_model.generate('x', cache=cache),
                     lambda: next(generation), lambda: things['sampler'].sample(b''), lambda: things['sampler'].reset(),
                     lambda: open_model.generate('x', sampler=things['sampler']),
                     lambda: things['tokenizer'].encode('x'), lambda: things['decoder'].push(1),
                     lambda: things['store'].info, lambda: cache.__enter__(), lambda: wkv.Cache.select([cache], [0])):
            with self.assertRaises(wkv.ClosedError) as caught:
                call()
            self.assertIsInstance(caught.exception, ValueError)
        self.assertEqual(model.info.layers, 8)  # what is known stays known

    def test_parent_first(self):
        for first in ('model', 'cache', 'sampler', 'tokenizer'):
            things = everything()
            things['model'].close()
            things[first].close()
            gc.collect()
            if first != 'cache':
                things['cache'].step([1, 2])
                things['cache'].step([1, 2], all_logits=True)
                things['cache'].copy().step([3])
            self.assertEqual(things['decoder'].push(1539), self.text_of(1539))
            self.assertEqual(len(list(things['generation'])), 5)
            things['store'].clear()

    @staticmethod
    def text_of(token):
        return support.story_model().tokenizer.decode([token])

    def test_closing_the_model_frees_it_with_its_last_cache(self):
        model = wkv.Model(support.STORY_MODEL, device='cpu', threads=1)
        cache = model.cache()
        before = model.memory.caches_bytes
        cache.close()
        self.assertLess(model.memory.caches_bytes, before)

    def test_close_during_a_step(self):
        model = wkv.Model(support.STORY_MODEL, device='cpu', threads=2)
        cache = model.cache()
        with support.stepping(self, cache) as outcome:
            cache.close()
            model.close()
            gc.collect()
            with self.assertRaises(wkv.ClosedError):
                cache.step([1])
        self.assertEqual(len(support.numbers(outcome['result'])), 2048)

    def test_close_during_a_generation(self):
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

    def test_stress(self):
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


@unittest.skipUnless(os.path.exists('/proc/self/statm'), 'memory is read from /proc')
class Memory(unittest.TestCase):
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


if __name__ == '__main__':
    support.main()
