# SPDX-License-Identifier: Apache-2.0
"""Text: tokenizers, decoders, samplers, generations, sessions."""
import _thread
import array
import json
import pathlib
import pickle
import signal
import tempfile
import threading
import time
import unittest

import support
import wkv

class Tokens(unittest.TestCase):
    def setUp(self):
        self.tokenizer = support.story_model().tokenizer

    def test_round_trip(self):
        for text in ('Once upon a time', '', 'The king said: "Go!"'):
            self.assertEqual(self.tokenizer.decode(self.tokenizer.encode(text)), text)
        self.assertEqual(self.tokenizer.encode('Once upon a time'), self.tokenizer.encode(b'Once upon a time'))

    def test_wrong_use(self):
        tokenizer = wkv.Tokenizer.from_bytes(support.VOCABULARY)
        with self.assertRaises(wkv.UnsupportedError):
            tokenizer.encode('z')
        with self.assertRaises(UnicodeEncodeError):
            tokenizer.encode('\ud800')
        for wrong in (None, 3, [1]):
            with self.assertRaises(TypeError):
                tokenizer.encode(wrong)
        with self.assertRaises(ValueError):
            tokenizer.decode([-1])
        with self.assertRaises(wkv.FormatError) as caught:
            wkv.Tokenizer.from_bytes(b'1 broken')
        self.assertIn('1', str(caught.exception))
        with self.assertRaises(FileNotFoundError):
            wkv.Tokenizer('/no/such/vocabulary.txt')

    def test_golden_cases(self):
        folder = support.GOLDEN[0] / 'rnd_a'
        tokenizer = wkv.Tokenizer(folder / 'weights/rwkv_vocab.txt')
        cases = json.loads((folder / 'golden/tokenizer_cases.json').read_text())
        self.assertGreater(len(cases), 4)
        for case in cases:
            raw = bytes.fromhex(case['bytes_hex'])
            self.assertEqual(tokenizer.encode(raw), case['ids'])
            self.assertEqual(tokenizer.decode_bytes(case['ids']), raw)


class Sampling(unittest.TestCase):
    logits = array.array('f', [0.0, 5.0, 1.0, 4.0])

    def test_options(self):
        self.assertEqual(wkv.Sampler(temperature=0)(self.logits), 1)
        self.assertEqual(wkv.Sampler(greedy=True)(self.logits), 1)
        self.assertEqual(wkv.Sampler(greedy=True, banned_tokens=[1])(self.logits), 3)
        self.assertEqual(wkv.Sampler(greedy=True, biases={2: 100.0})(self.logits), 2)
        self.assertEqual(wkv.Sampler(top_k=1)(self.logits), 1)
        shares = support.numbers(wkv.Sampler(top_k=2).probabilities(self.logits))
        self.assertEqual((shares[0], shares[2]), (0, 0))
        self.assertAlmostEqual(sum(shares), 1, 5)
        sampler = wkv.Sampler(seed=3)
        first = [sampler(self.logits) for _ in range(20)]
        sampler.reset(3)
        self.assertEqual([sampler(self.logits) for _ in range(20)], first)
        penalised = wkv.Sampler(greedy=True, presence=10)
        penalised.accept(1)
        self.assertEqual(penalised(self.logits), 3)

    def test_wrong_options(self):
        for wrong, error in (({'temperature': -1}, ValueError), ({'top_p': 2}, ValueError), ({'top_k': 'a'}, TypeError),
                             ({'min_p': 1.0}, ValueError), ({'biases': {-1: 1.0}}, ValueError), ({'seed': -1}, (OverflowError, TypeError)),
                             ({'unknown': 1}, TypeError), ({'temperature': float('nan')}, ValueError)):
            with self.subTest(wrong), self.assertRaises(error):
                wkv.Sampler(**wrong)
        with self.assertRaises(ValueError):
            wkv.Sampler(banned_tokens=[0])(array.array('f', [1.0]))
        with self.assertRaises(TypeError):
            wkv.Sampler()([1.0, 2.0])
        with self.assertRaises(ValueError):
            wkv.Sampler().probabilities(self.logits, array.array('f', [0.0]))


class Generations(unittest.TestCase):
    def setUp(self):
        self.model = support.story_model()

    def test_greedy_is_the_likeliest_token_of_each_step(self):
        cache, prompt = self.model.cache(), self.model.tokenizer.encode('Once upon a time')
        logits, tokens = support.numbers(cache.step(prompt)), []
        for _ in range(12):
            tokens.append(max(range(2047), key=lambda i: logits[i]))
            logits = support.numbers(cache.step(tokens[-1]))
        generation = self.model.generate('Once upon a time', max_tokens=12)
        pieces = list(generation)
        self.assertEqual([piece.token for piece in pieces], tokens)
        self.assertEqual(''.join(pieces), self.model.tokenizer.decode(tokens))
        self.assertEqual((generation.reason, generation.pending_token, generation.tokens_generated),
                         ('max_tokens', tokens[-1], 12))
        self.assertEqual(generation.prompt_tokens, len(prompt))
        self.assertEqual(list(generation), [])

    def test_pieces(self):
        for piece in self.model.generate('Once', max_tokens=3, alternatives=4):
            self.assertIsInstance(piece, str)
            self.assertLess(piece.log_probability, 0)
            self.assertEqual(len(piece.alternatives), 4)
        self.assertEqual(piece.reason, 'max_tokens')

    def test_seed(self):
        texts = [self.model.generate('Once', max_tokens=20, temperature=1.0, seed=seed).text() for seed in (1, 1, 2)]
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])

    def test_a_cache_goes_on(self):
        cache = self.model.cache()
        first = self.model.generate('There was', cache=cache, max_tokens=5)
        text = first.text()
        self.assertIs(first.cache, cache)
        second = self.model.generate(' and', cache=cache, previous=first, max_tokens=5)
        text += ' and' + second.text()
        read = self.model.tokenizer.encode('There was') + list(cache.last_tokens)[-1:]
        self.assertEqual(cache.position, first.prompt_tokens + 5 + len(self.model.tokenizer.encode(' and')) + 4)
        self.assertTrue(read)

    def test_stop_strings_leave_no_trace(self):
        generation = self.model.generate('Once upon a time', max_tokens=200, stop='.')
        text = generation.text()
        self.assertNotIn('.', text)
        self.assertEqual(generation.reason, 'stop_string')
        self.assertIsNone(generation.pending_token)
        self.assertIsInstance(generation.unread, bytes)
        kept = self.model.generate('Once upon a time', max_tokens=200, stop=['.', 'xyz'], keep_stop=True)
        self.assertEqual(kept.text(), text)
        self.assertGreater(kept.cache.position, generation.cache.position - 1)

    def test_wrong_use(self):
        for options, error in (({}, ValueError), ({'max_tokens': -1}, ValueError), ({'stop': ['']}, ValueError),
                               ({'stop': ['a\0b']}, ValueError), ({'stop': [3]}, TypeError), ({'unknown': 1}, TypeError),
                               ({'prompt_tokens': [99999]}, ValueError), ({'temperature': -1}, ValueError),
                               ({'sampler': 3}, TypeError), ({'sampler': wkv.Sampler(), 'temperature': 1}, TypeError),
                               ({'cache': 3}, TypeError), ({'alternatives': 21}, ValueError)):
            with self.subTest(options), self.assertRaises(error):
                self.model.generate(**{'prompt': '' if not options else 'Once', **options})

    def interrupted(self, generation):
        """Iterates until Ctrl-C arrives, which comes from another thread; gives the pieces before it."""
        pieces = []
        timer = threading.Timer(0.2, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))
        timer.start()
        start = time.monotonic()
        with self.assertRaises(KeyboardInterrupt):
            for piece in generation:
                pieces.append(piece)
            time.sleep(30)
        timer.join()
        self.assertLess(time.monotonic() - start, 20)
        return pieces

    def test_keyboard_interrupt_between_pieces(self):
        generation = self.model.generate('Once', max_tokens=100000, ignore_end=True)
        pieces = self.interrupted(generation)
        self.assertGreater(len(pieces), 0)
        self.assertIsInstance(next(generation), str)

    def test_keyboard_interrupt_in_a_long_prompt(self):
        generation = self.model.generate(prompt_tokens=[5] * 200000, max_tokens=1)
        self.assertEqual(self.interrupted(generation), [])
        self.assertEqual(generation.cache.position, 0)

    def test_interrupt_main(self):
        threading.Timer(0.2, _thread.interrupt_main).start()
        with self.assertRaises(KeyboardInterrupt):
            for _ in self.model.generate('Once', max_tokens=100000, ignore_end=True):
                pass
            time.sleep(30)

class Sessions(unittest.TestCase):
    def setUp(self):
        self.model = support.story_model()

    def begun(self):
        generation = self.model.generate('There was', max_tokens=30, temperature=0.9, seed=5, stop=['zzz'])
        for _ in range(7):
            next(generation)
        return generation

    def test_goes_on_with_the_same_words(self):
        rest = self.begun().text()
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / 'сессия.wkv'
            wkv.Session(generation=self.begun()).save(path)
            self.assertEqual(self.model.load_session(path).generation.text(), rest)
            self.assertEqual(wkv.Session.load(self.model, path).generation.text(), rest)
        data = wkv.Session(generation=self.begun()).to_bytes()
        self.assertEqual(self.model.session_from_bytes(data).generation.text(), rest)
        again = pickle.loads(pickle.dumps(wkv.Session(generation=self.begun())))
        self.assertEqual(again.generation.text(), rest)

    def test_parts(self):
        cache = self.model.cache()
        logits = cache.step([5])
        session = self.model.session_from_bytes(wkv.Session(cache, wkv.Sampler(seed=4), logits=logits).to_bytes())
        self.assertIsNone(session.generation)
        self.assertEqual(support.numbers(session.logits), support.numbers(logits))
        self.assertEqual([session.sampler(logits) for _ in range(9)],
                         (lambda sampler: [sampler(logits) for _ in range(9)])(wkv.Sampler(seed=4)))
        plain = self.model.session_from_bytes(cache.to_bytes())
        self.assertEqual((plain.sampler, plain.generation, plain.logits), (None, None, None))
        self.assertEqual(self.model.cache_from_bytes(wkv.Session(cache, wkv.Sampler()).to_bytes()).position, 1)
        self.assertIn('sampler', repr(session))

    def test_wrong_parts(self):
        with self.assertRaises(TypeError):
            wkv.Session()
        with self.assertRaises(ValueError):
            wkv.Session(self.model.cache(), logits=array.array('f', [1.0])).to_bytes()
        with self.assertRaises(ValueError):
            wkv.Session(self.model.cache(), generation=self.begun()).to_bytes()
        with self.assertRaises(TypeError):
            wkv.Session(3).to_bytes()
        session = wkv.Session(generation=self.begun())
        session.cache.close()
        with self.assertRaises(wkv.ClosedError):
            session.to_bytes()


if __name__ == '__main__':
    support.main()
