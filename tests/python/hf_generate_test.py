# SPDX-License-Identifier: Apache-2.0
"""wkv.hf: ways to decode, and the house that a model lives in. Classes are named as in hf_turns_test.py."""
import gc
import pickle
import subprocess
import sys
import tempfile
import threading
import warnings
import weakref
from unittest import mock

from hf_support import (FLA_FOLDER, TINY, Case, Favour, RWKV7Cache, RWKV7ForCausalLM, expected, padded, said,
                        some_ids, story, support, tensor, tiny, torch, transformers, with_past)
from transformers import (LogitsProcessor, StaticCache, StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer,
                          TextStreamer)

import wkv


class G25(Case):
    """Beam search is that over recomputation; a cache given is repeated."""

    def test(self):
        rows = tensor(some_ids(6), some_ids(6, 2))
        for beams in (2, 4):
            options = {'num_beams': beams, 'max_new_tokens': 8, 'eos_token_id': 330, 'do_sample': False}
            reference = tiny().generate(rows, use_cache=False, **options)
            cache = RWKV7Cache()
            self.assertEqual(tiny().generate(rows, **options).tolist(), reference.tolist())
            self.assertEqual(tiny().generate(rows, past_key_values=cache, **options).tolist(), reference.tolist())
            self.assertEqual((cache.batch_size, cache.get_seq_length()), (2 * beams, 6 + 7))

    def test_a_cache_with_a_past(self):
        rows = [some_ids(6), some_ids(6, 2)]
        history = tensor(*[row + [3, 4, 5] for row in rows])
        options = {'num_beams': 3, 'num_return_sequences': 2, 'max_new_tokens': 6, 'eos_token_id': 330, 'do_sample': False}
        reference = tiny().generate(history, use_cache=False, **options).tolist()
        cache = with_past(tiny(), tensor(*rows))
        repeated = cache.clone()
        repeated.batch_repeat_interleave(3)
        for past in (cache, repeated):
            self.assertEqual(tiny().generate(history, past_key_values=past, **options).tolist(), reference)
        mask = torch.ones_like(history)
        cache = with_past(tiny(), tensor(*rows))
        answers = tiny().generate(history[:, 6:], past_key_values=cache, attention_mask=mask, **options)
        self.assertEqual(answers[:, 3:].tolist(), [row[9:] for row in reference])

    def test_afterwards_the_cache_does_not_take_the_answer_for_its_own(self):
        ids, cache = tensor(some_ids(6)), RWKV7Cache()
        options = {'num_beams': 2, 'num_return_sequences': 2, 'max_new_tokens': 5, 'eos_token_id': 330, 'do_sample': False}
        tiny().generate(ids, past_key_values=cache, **options)
        mask = torch.ones((2, cache.get_seq_length() + 2), dtype=torch.long)
        self.refuse(ValueError, 'mask', tiny().generate, tensor([3], [3]), cache=cache, attention_mask=mask,
                    max_new_tokens=2)

    def test_padded(self):
        batch = padded(some_ids(6), some_ids(3, 2))
        options = {'num_beams': 3, 'max_new_tokens': 6, 'eos_token_id': 330, 'do_sample': False}
        reference = tiny().generate(**batch, use_cache=False, **options)
        self.assertEqual(tiny().generate(**batch, **options).tolist(), reference.tolist())

    def test_the_wrong_number_of_rows(self):
        cache = with_past(tiny(), tensor(some_ids(3), some_ids(3, 2), some_ids(3, 3)))
        self.refuse(ValueError, 'holds 3', tiny().generate, tensor(some_ids(5)), cache=cache, num_beams=2, max_new_tokens=2)


class G26(Case):
    """num_return_sequences with sampling: rows by themselves, and seeded."""

    def test(self):
        options = {'do_sample': True, 'num_return_sequences': 4, 'max_new_tokens': 8, 'eos_token_id': None}
        torch.manual_seed(5)
        one, cache = tiny().generate(tensor(some_ids(6)), **options), RWKV7Cache()
        torch.manual_seed(5)
        two = tiny().generate(tensor(some_ids(6)), past_key_values=cache, **options)
        torch.manual_seed(5)
        recomputed = tiny().generate(tensor(some_ids(6)), use_cache=False, **options)
        self.assertEqual(one.tolist(), two.tolist())
        self.assertEqual(one.tolist(), recomputed.tolist())
        self.assertEqual(len({tuple(row) for row in one.tolist()}), 4)
        self.assertEqual(cache.tokens, two[:, :-1].tolist())


class G27(Case):
    """Assisted decoding and prompt lookup: the refusal of transformers for stateful models."""

    def test(self):
        cache = with_past(tiny(), some_ids(5))
        for options in ({'assistant_model': tiny()}, {'prompt_lookup_num_tokens': 3}):
            self.refuse(ValueError, 'stateful', tiny().generate, tensor(some_ids(5) + [5]), cache=cache, max_new_tokens=3,
                        **options)


class G28(Case):
    """Other kinds of cache: a clear refusal."""

    def test(self):
        for kind in ('static', 'offloaded', 'quantized', 'dynamic'):
            self.refuse(ValueError, kind, tiny().generate, tensor(some_ids(5)), max_new_tokens=3, cache_implementation=kind)
        self.refuse(ValueError, 'use_cache=False', tiny().generate, tensor(some_ids(5)), past_key_values=RWKV7Cache(),
                    use_cache=False)

    def test_a_static_cache(self):
        config = transformers.LlamaConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1)
        static = StaticCache(config=config, max_cache_len=9)
        self.refuse(TypeError, 'StaticCache', tiny().generate, tensor(some_ids(5)), past_key_values=static)


class G31(Case):
    """is_compileable is False: nothing is compiled, and no mask of 4 dimensions is asked for."""

    def test(self):
        cache = RWKV7Cache()
        self.assertIs(cache.is_compileable, False)
        shapes = []
        forward = RWKV7ForCausalLM.forward

        def watch(self, input_ids=None, attention_mask=None, **others):
            shapes.append(None if attention_mask is None else attention_mask.dim())
            return forward(self, input_ids, attention_mask, **others)

        with mock.patch('torch.compile', side_effect=AssertionError('compiled')), mock.patch.object(
                RWKV7ForCausalLM, 'forward', watch):
            tiny().generate(**padded(some_ids(5), some_ids(3)), past_key_values=cache, max_new_tokens=4)
        self.assertEqual(set(shapes), {2, None})


class G32(Case):
    """Streamers, stop_strings, StoppingCriteria, LogitsProcessor."""

    def setUp(self):
        self.tokenizer = story().tokenizer()
        self.ids = self.tokenizer('Once upon a time', return_tensors='pt').input_ids

    def test_streamers(self):
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True)
        with support.running(lambda: story().generate(self.ids, streamer=streamer, max_new_tokens=12)) as outcome:
            text = ''.join(streamer)
        self.assertEqual(text, self.tokenizer.decode(outcome['result'][0, self.ids.shape[1]:]))
        pieces = []
        with mock.patch.object(TextStreamer, 'on_finalized_text', lambda self, text, stream_end=False: pieces.append(text)):
            story().generate(self.ids, streamer=TextStreamer(self.tokenizer), max_new_tokens=12)
        self.assertEqual(''.join(pieces), 'Once upon a time' + text)

    def test_stop_strings(self):
        whole = self.tokenizer.decode(story().generate(self.ids, max_new_tokens=40)[0])
        stop = whole[30:34]
        cache = RWKV7Cache()
        ids = story().generate(self.ids, max_new_tokens=40, stop_strings=[stop], tokenizer=self.tokenizer,
                               past_key_values=cache)
        text = self.tokenizer.decode(ids[0])
        self.assertIn(stop, text)
        self.assertTrue(whole.startswith(text))
        self.assertLess(len(text), len(whole))
        more = torch.cat([ids, self.tokenizer(' The end.', return_tensors='pt').input_ids], 1)
        self.assertEqual(said(story(), more, 4, past_key_values=cache), said(story(), more, 4))

    def test_criteria_and_processors(self):
        class Third(StoppingCriteria):
            def __call__(self, input_ids, scores, **_):
                return torch.full((input_ids.shape[0],), input_ids.shape[1] >= 8)

        ids = tensor(some_ids(5))
        output = tiny().generate(ids, stopping_criteria=StoppingCriteriaList([Third()]), max_new_tokens=9)
        self.assertEqual(output.shape[1], 8)
        answer = said(tiny(), ids, 4, logits_processor=[Favour((0, 0, 7), (2, 0, 9))])[0]
        self.assertEqual((answer[0], answer[2]), (7, 9))
        self.assertEqual(answer[1], expected(ids[0].tolist() + [7], 1)[0])
        options = {'repetition_penalty': 1.5, 'no_repeat_ngram_size': 2, 'temperature': 0.7, 'top_k': 20, 'top_p': 0.9,
                   'do_sample': True}
        torch.manual_seed(1)
        one = said(tiny(), ids, 8, **options)
        torch.manual_seed(1)
        self.assertEqual(said(tiny(), ids, 8, use_cache=False, **options), one)


class G35(Case):
    """Two threads with a cache each are as one after the other; two with one cache: busy."""

    def test_two_caches(self):
        rows, answers = [some_ids(5, seed) for seed in range(4)], {}

        def work(i):
            cache = RWKV7Cache()
            first = said(tiny(), rows[i], 20, past_key_values=cache)[0]
            answers[i] = first + said(tiny(), rows[i] + first + [3], 20, past_key_values=cache)[0]

        tiny()
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i, row in enumerate(rows):
            first = expected(row, 20)
            self.assertEqual(answers[i], first + expected(row + first + [3], 20))

    def test_one_cache(self):
        inside, go_on = threading.Event(), threading.Event()

        class Wait(LogitsProcessor):
            def __call__(self, input_ids, scores):
                inside.set()
                go_on.wait(60)
                return scores

        cache, ids = RWKV7Cache(), some_ids(5)
        with support.running(lambda: said(tiny(), ids, 6, past_key_values=cache, logits_processor=[Wait()])) as outcome:
            try:
                self.assertTrue(inside.wait(60))
                for call in (lambda: tiny().generate(tensor(ids + [1, 2]), past_key_values=cache), cache.reset, cache.clone,
                             lambda: tiny()(tensor([1]), past_key_values=cache), lambda: cache.crop(-1), cache.close,
                             cache.to_legacy_cache, lambda: pickle.dumps(cache), lambda: cache.reorder_cache([0])):
                    with self.assertRaises(wkv.BusyError):
                        call()
            finally:
                go_on.set()
        self.assertEqual(outcome['result'], [expected(ids, 6)])

    def test_generate_inside_generate(self):
        cache, ids = RWKV7Cache(), some_ids(5)

        class Again(LogitsProcessor):
            def __call__(self, input_ids, scores):
                tiny()(tensor([5]), past_key_values=cache)
                return scores

        class Nested(LogitsProcessor):
            def __call__(self, input_ids, scores):
                tiny().generate(input_ids, past_key_values=cache)

        with self.assertRaisesRegex(wkv.BusyError, 'using this cache'):
            tiny().generate(tensor(ids), past_key_values=cache, logits_processor=[Nested()], max_new_tokens=3)
        cache.reset()
        with self.assertRaisesRegex(RuntimeError, 'used by others'):
            tiny().generate(tensor(ids), past_key_values=cache, logits_processor=[Again()], max_new_tokens=3)


class G36(Case):
    """10,000 calls: flat memory. Caches go by del, close() and with cycles."""

    def test_calls(self):
        ids = tensor(some_ids(4))

        def calls(count):
            for i in range(count):
                tiny().generate(ids, past_key_values=RWKV7Cache() if i % 2 else None, max_new_tokens=2)
            gc.collect()
            return support.resident_bytes()

        calls(500)
        before = calls(1)
        self.assertLess(calls(10_000) - before, 8 << 20)

    def test_caches_go(self):
        cache = with_past(tiny(), some_ids(5))
        state = weakref.ref(cache.caches[0])
        gc.disable()
        try:
            del cache
            self.assertIsNone(state())
        finally:
            gc.enable()
        cache = with_past(tiny(), some_ids(5))
        state = weakref.ref(cache.caches[0])
        cache.itself = cache
        del cache
        gc.collect()
        self.assertIsNone(state())
        cache = with_past(tiny(), some_ids(5))
        held = cache.caches[0]
        cache.close()
        self.assertTrue(held.closed)
        self.assertEqual((cache.get_seq_length(), cache.batch_size), (0, -1))

    def test_an_error_keeps_no_cache_from_growing(self):
        cache, ids = with_past(tiny(), some_ids(5)), some_ids(5)
        try:
            tiny().generate(tensor(some_ids(9, 4)), past_key_values=cache)
        except ValueError as error:
            kept = error  # with its frames
        self.assertEqual(said(tiny(), ids + [1], 3, past_key_values=cache), [expected(ids + [1], 3)])
        del kept


class G38(Case):
    """Hooks of accelerate, to(), half(): they work where nothing moves, and are refused where something would."""

    def test_moves(self):
        model = tiny()
        for same in (model.to('cpu'), model.to(torch.float32), model.float(), model.eval(), model.requires_grad_(False)):
            self.assertIs(same, model)
        self.assertEqual((model.device, model.dtype, list(model.parameters())), (torch.device('cpu'), torch.float32, []))
        for move in (model.half, model.bfloat16, model.double, lambda: model.to('meta'), lambda: model.to(torch.float16)):
            self.refuse(NotImplementedError, 'chosen at loading', move)
        self.assertEqual(model.num_parameters(), model.wkv.info.parameters)

    def test_accelerate(self):
        try:
            import accelerate
        except ImportError:
            self.skipTest('accelerate is not installed')
        model, ids, cache = RWKV7ForCausalLM.from_wkv(tiny().wkv), some_ids(5), RWKV7Cache()
        model = accelerate.dispatch_model(model, {'': 'cpu'}, force_hooks=True)
        self.assertEqual(said(model, ids, 5, past_key_values=cache), [expected(ids, 5)])
        self.assertEqual(cache.get_seq_length(), 9)

    def test_training(self):
        self.refuse(NotImplementedError, 'does not train', tiny().train)
        output = tiny()(tensor(some_ids(9)), labels=tensor(some_ids(9)))
        scores = torch.log_softmax(output.logits[0, :-1], -1)
        expected_loss = -scores[range(8), some_ids(9)[1:]].mean()
        self.assertAlmostEqual(float(output.loss), float(expected_loss), places=4)
        with self.assertRaises(RuntimeError):
            output.loss.backward()
        with tempfile.TemporaryDirectory() as folder:
            self.refuse(NotImplementedError, 'copy it', tiny().save_pretrained, folder)


class G39(Case):
    """An AttributeError of others inside generate() stays what it is."""

    def test(self):
        class Faulty(LogitsProcessor):
            def __call__(self, input_ids, scores):
                raise AttributeError('mine has no past_key_values')

        with self.assertRaises(AttributeError) as caught:
            tiny().generate(tensor(some_ids(5)), logits_processor=[Faulty()])
        self.assertEqual(str(caught.exception), 'mine has no past_key_values')


class Loading(Case):
    def test_ways(self):
        ids = tensor(some_ids(5))
        folder = RWKV7ForCausalLM.from_pretrained(FLA_FOLDER, device='cpu', threads=1)
        torch.testing.assert_close(folder(ids).logits, tiny()(ids).logits, rtol=0, atol=2e-3)
        config = folder.config
        self.assertEqual((config.num_hidden_layers, config.vocab_size, config.model_type), (2, 331, 'rwkv7'))
        self.assertIn('wkv.Model', repr(folder))
        with self.assertRaises(FileNotFoundError):
            RWKV7ForCausalLM.from_pretrained('nobody/no-model')
        with self.assertRaises(TypeError):
            RWKV7ForCausalLM.from_wkv(tiny().wkv, threads=2)
        with self.assertRaises(TypeError):
            RWKV7Cache(3)

    def test_a_model_that_was_closed(self):
        model = RWKV7ForCausalLM.from_pretrained(TINY, device='cpu', threads=1)
        cache = with_past(model, some_ids(5))
        model.wkv.close()
        model(tensor([3]), past_key_values=cache)  # the cache keeps the weights
        with self.assertRaises(wkv.ClosedError):
            model(tensor([3]))

    def test_caches_from_outside(self):
        ids = some_ids(5)
        states = [tiny().wkv.cache(), tiny().wkv.cache()]
        for state in states:
            state.step(ids)
        cache = RWKV7Cache.from_caches(states, [ids, ids])
        more = tensor(ids + [1], ids + [2])
        self.assertEqual(said(tiny(), more, 3, past_key_values=cache), [expected(row, 3) for row in more.tolist()])
        for wrong, error in (([], TypeError), ([3], TypeError), ([states[0]] * 2, ValueError),
                             ([states[0], story().wkv.cache()], ValueError)):
            with self.assertRaises(error):
                RWKV7Cache.from_caches(wrong)
        for tokens in ([[1, 2]], [], [[1] * states[0].position]):
            with self.assertRaises(ValueError):
                RWKV7Cache.from_caches(states[:1], tokens)
        with self.assertRaises(ValueError):
            RWKV7Cache.from_caches([tiny().wkv.cache()], [[1]])

    def test_without_transformers(self):
        program = "import sys; sys.modules['transformers'] = None; import wkv; print(wkv.__name__); import wkv.hf"
        done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
        self.assertEqual(done.stdout, 'wkv\n')
        self.assertIn('ImportError: wkv.hf needs torch and transformers (pip install wkv[hf])', done.stderr)


class Tokenizer(Case):
    def test_text_and_ids(self):
        tokenizer, own = story().tokenizer(), story().wkv.tokenizer
        for text in ('Once upon a time', 'Ünïcödé 🦢 \n tabs\t', ' leading', ''):
            self.assertEqual(tokenizer(text).input_ids, own.encode(text))
            self.assertEqual(tokenizer.decode(own.encode(text)), text)
        self.assertEqual(tokenizer.decode([0]), '<|endoftext|>')
        self.assertEqual(tokenizer.decode([0, 326], skip_special_tokens=True), own.decode([326]))
        self.assertEqual((len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id), (2048, 0, 0))

    def test_a_pipeline(self):
        pipeline = transformers.pipeline('text-generation', model=story(), tokenizer=story().tokenizer())
        text = pipeline('Once upon a time', max_new_tokens=8, do_sample=False)[0]['generated_text']
        self.assertEqual(text, 'Once upon a time' + story().wkv.generate('Once upon a time', max_tokens=8).text())

    def test_padding_on_the_left(self):
        batch = story().tokenizer()(['Once upon a time', 'The'], padding=True, return_tensors='pt')
        self.assertEqual(set(batch), {'input_ids', 'attention_mask'})
        self.assertEqual(batch['attention_mask'].tolist(), [[1] * 5, [0] * 4 + [1]])
        self.assertEqual(batch['input_ids'][1, :4].tolist(), [0] * 4)


class Example(Case):
    def test_hf_generate(self):
        done = subprocess.run([sys.executable, str(support.ROOT / 'examples/python/hf_generate.py')], capture_output=True,
                              text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('Once upon a time', done.stdout)
        self.assertIn('sequences of', done.stdout)


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    support.main()
