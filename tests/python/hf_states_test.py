# SPDX-License-Identifier: Apache-2.0
"""wkv.hf: states, rows and scores of one forward. Classes are named as in hf_turns_test.py."""
import unittest
import warnings

from hf_support import (FLA_FOLDER, Case, RWKV7Cache, content, expected, is_same, output_cache,
                        padded, said, some_ids, story, support, tensor, tiny, torch, transformers, with_past)

try:
    import fla.models.utils as fla
except ImportError:
    fla = None


class G14(Case):
    """len, iteration, cache[i]: layers as readable tensors in the shapes of flash-linear-attention."""

    def test(self):
        self.assertEqual((len(RWKV7Cache()), list(RWKV7Cache())), (0, []))
        cache = with_past(tiny(), tensor(some_ids(9), some_ids(9, 2)))
        self.assertEqual((len(cache), len(list(cache)), len(cache.layers), cache.batch_size), (2, 2, 2, 2))
        for i, layer in enumerate(cache):
            self.assertEqual(set(layer), {'recurrent_state', 'attn_state', 'conv_state', 'ffn_state'})
            self.assertEqual(list(layer['recurrent_state'].shape), [2, 1, 64, 64])
            self.assertEqual([list(layer[name].shape) for name in ('conv_state', 'ffn_state')], [[2, 64]] * 2)
            self.assertIsNone(layer['attn_state'])
            for row, state in enumerate(cache.caches):
                official = torch.as_tensor(state.read_state(i, 'wkv'))  # [heads, value, key]
                self.assertTrue(torch.equal(cache[i]['recurrent_state'][row], official.transpose(1, 2)))
                self.assertTrue(torch.equal(layer['ffn_state'][row], torch.as_tensor(state.read_state(i, 'ffn_shift'))))
                self.assertTrue(torch.equal(layer['conv_state'][row], torch.as_tensor(state.read_state(i, 'att_shift'))))
            with self.assertRaises(KeyError):
                layer['keys']
        for wrong in (2, 99, -3):
            with self.assertRaises(IndexError):
                cache[wrong]
        with self.assertRaises(NotImplementedError):
            cache.update(torch.zeros(1), torch.zeros(1), 0)
        self.assertIn('2 sequences of 9', repr(cache))


class G15(Case):
    """to_legacy_cache and from_legacy_cache(seen_tokens): a round trip."""

    def test(self):
        rows = [some_ids(17), some_ids(17, 2)]
        cache = with_past(tiny(), tensor(*rows))
        legacy = cache.to_legacy_cache()
        again = RWKV7Cache.from_legacy_cache(legacy, 17, model=tiny(), tokens=rows)
        self.assertTrue(is_same(content(again), content(cache)))
        more = [row + [3, 4] for row in rows]
        self.assertEqual(said(tiny(), tensor(*more), 4, past_key_values=again), [expected(row, 4) for row in more])

    def test_unknown_tokens(self):
        ids = some_ids(17)
        legacy = with_past(tiny(), ids).to_legacy_cache()
        new, full = some_ids(3, 2), ids + some_ids(3, 2)
        for given, columns in ((new, 20), (full, 20)):
            cache = RWKV7Cache.from_legacy_cache(legacy, 17, model=tiny().wkv)
            self.assertEqual(cache.get_seq_length(), 17)
            self.refuse(ValueError, 'not known', tiny().generate, tensor(given), cache=cache)
            mask = torch.ones((1, columns), dtype=torch.long)
            self.assertEqual(said(tiny(), given, 4, past_key_values=cache, attention_mask=mask), [expected(full, 4)])

    def test_wrong_ones(self):
        legacy = with_past(tiny(), some_ids(5)).to_legacy_cache()
        bent = [{**layer, 'conv_state': layer['conv_state'][:, :-1]} for layer in legacy]
        hybrid = [{**layer, 'attn_state': (torch.zeros(1), torch.zeros(1))} for layer in legacy]
        bad = [{**layer, 'ffn_state': layer['ffn_state'] * float('nan')} for layer in legacy]
        for wrong in (legacy[:1], bent, hybrid, bad, [{**legacy[0], 'ffn_state': None}] * 2):
            with self.assertRaises(ValueError):
                RWKV7Cache.from_legacy_cache(wrong, 5, model=tiny())
        with self.assertRaisesRegex(ValueError, 'not empty'):
            RWKV7Cache.from_legacy_cache(legacy, model=tiny())
        for tokens in ([], [[1, 2, 3, 4, 5]] * 2):
            with self.assertRaisesRegex(ValueError, 'tokens of'):
                RWKV7Cache.from_legacy_cache(legacy, 5, model=tiny(), tokens=tokens)
        with self.assertRaisesRegex(TypeError, 'model='):
            RWKV7Cache.from_legacy_cache(legacy, 5)


class G16(Case):
    """From and to the cache of flash-linear-attention: key first there, value first here."""

    def test_conversion(self):
        rows = [some_ids(11), some_ids(11, 2)]
        cache = with_past(tiny(), tensor(*rows))
        theirs = cache.to_fla()
        self.assertEqual((len(theirs), theirs.get_seq_length(), theirs.get_seq_length(1)), (2, 11, 11))
        state = torch.as_tensor(cache.caches[1].read_state(1, 'wkv'))[0]
        self.assertFalse(torch.equal(state, state.T))
        self.assertTrue(torch.equal(theirs[1]['recurrent_state'][1, 0], state.T))
        again = RWKV7Cache.from_fla(theirs, tiny(), tokens=rows)
        self.assertTrue(is_same(content(again), content(cache)))
        more = [row + [3, 4] for row in rows]
        self.assertEqual(said(tiny(), tensor(*more), 4, past_key_values=again), [expected(row, 4) for row in more])

    @unittest.skipUnless(torch.cuda.is_available(), 'kernels of flash-linear-attention need a GPU')
    def test_both_engines(self):
        from fla.models import RWKV7ForCausalLM as Theirs
        theirs = Theirs.from_pretrained(FLA_FOLDER, dtype=torch.float32).cuda().eval()
        first, second = tensor(some_ids(20)), tensor(some_ids(9, 2))
        with torch.no_grad():
            past = theirs(first.cuda(), use_cache=True)
            moved = RWKV7Cache.from_fla(output_cache(past), tiny())
            whole = theirs(torch.cat([first, second], 1).cuda()).logits[:, -9:].cpu()
            ours = tiny()(second, past_key_values=moved).logits
            torch.testing.assert_close(ours, whole, rtol=0, atol=2e-3)
            back = with_past(tiny(), first).to_fla('cuda')
            steps = []
            for column in range(9):
                output = theirs(second[:, column:column + 1].cuda(), past_key_values=back, use_cache=True)
                back = output_cache(output)
                steps.append(output.logits.cpu())
            torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=0, atol=2e-3)


class G17(Case):
    """A batch of 4 with random left padding is the rows alone."""

    def test_forward(self):
        rows = [some_ids(count, count) for count in (64, 17, 40, 1)]
        cache, later = RWKV7Cache(), [some_ids(40, 100 + i) for i in range(4)]
        alone = [tiny().wkv.cache().step(row + more, all_logits=True) for row, more in zip(rows, later)]
        batch = padded(*rows)
        logits = tiny()(**batch, past_key_values=cache).logits
        mask = batch['attention_mask']
        for i, row in enumerate(rows):
            torch.testing.assert_close(logits[i, -len(row):], torch.as_tensor(alone[i][:len(row)]), rtol=0, atol=2e-3)
        for column in range(40):
            mask = torch.cat([mask, mask.new_ones((4, 1))], 1)
            step = tiny()(tensor(*[[more[column]] for more in later]), attention_mask=mask, past_key_values=cache).logits
            for i, row in enumerate(rows):
                torch.testing.assert_close(step[i, 0], torch.as_tensor(alone[i][len(row) + column]), rtol=0, atol=2e-3)

    def test_generate(self):
        rows = [some_ids(count, count) for count in (30, 2, 11, 17)]
        answers = tiny().generate(**padded(*rows), max_new_tokens=30, eos_token_id=None)[:, 30:]
        self.assertEqual(answers.tolist(), [expected(row, 30) for row in rows])

    def test_without_a_cache(self):
        rows = [some_ids(count, count) for count in (9, 2, 5)]
        answers = tiny().generate(**padded(*rows), max_new_tokens=5, eos_token_id=None, use_cache=False)[:, 9:]
        self.assertEqual(answers.tolist(), [expected(row, 5) for row in rows])


class G18(Case):
    """Right padding: right by lengths."""

    def test(self):
        rows = [some_ids(9), some_ids(4, 2)]
        answers = tiny().generate(**padded(*rows, left=False), max_new_tokens=6, eos_token_id=None)[:, 9:]
        self.assertEqual(answers.tolist(), [expected(row, 6) for row in rows])
        logits = tiny()(**padded(*rows, left=False)).logits
        alone = torch.as_tensor(tiny().wkv.cache().step(rows[1], all_logits=True))
        torch.testing.assert_close(logits[1, :4], alone, rtol=0, atol=1e-4)
        torch.testing.assert_close(logits[1, 4:], alone[-1:].expand(5, -1), rtol=0, atol=1e-4)

    def test_holes(self):
        ids, mask = some_ids(6), tensor([1, 0, 1, 1, 0, 1])
        logits = tiny()(tensor(ids), attention_mask=mask).logits
        read = [ids[i] for i in (0, 2, 3, 5)]
        alone = torch.as_tensor(tiny().wkv.cache().step(read, all_logits=True))
        torch.testing.assert_close(logits[0], alone[[0, 0, 1, 2, 2, 3]], rtol=0, atol=1e-4)


class G19(Case):
    """A mask of ones and no mask: the same bits."""

    def test(self):
        ids = tensor(some_ids(9), some_ids(9, 2))
        plain = tiny()(ids).logits
        for mask in (torch.ones_like(ids), torch.ones_like(ids, dtype=torch.bool), torch.ones(ids.shape)):
            self.assertTrue(torch.equal(tiny()(ids, attention_mask=mask).logits, plain))


class G20(Case):
    """A prompt in chunks is the same."""

    def test(self):
        ids = some_ids(130)
        whole = with_past(tiny(), ids)
        logits = tiny()(tensor([5]), past_key_values=whole.clone()).logits
        for size in (1, 3, 16, 64, 65):
            cache = RWKV7Cache()
            for begin in range(0, len(ids), size):
                tiny()(tensor(ids[begin:begin + size]), past_key_values=cache, logits_to_keep=1)
            self.assertEqual(cache.tokens, whole.tokens)
            torch.testing.assert_close(tiny()(tensor([5]), past_key_values=cache).logits, logits, rtol=0, atol=1e-4)
            self.assertEqual(said(tiny(), ids, 4, prefill_chunk_size=size), [expected(ids, 4)])
            config = transformers.GenerationConfig(prefill_chunk_size=size, max_new_tokens=4, eos_token_id=330)
            self.assertEqual(tiny().generate(tensor(ids), config)[0, -4:].tolist(), expected(ids, 4))
            self.assertEqual(config.prefill_chunk_size, size)


class G21(Case):
    """Steps of one id are the same as one call, at 1, 63, 64, 65, 1000 ids."""

    def test(self):
        ids, cache = some_ids(1001), RWKV7Cache()
        for count in range(1, 1001):
            step = tiny()(tensor(ids[count - 1:count]), past_key_values=cache, logits_to_keep=1).logits[0, 0]
            if count in (1, 63, 64, 65, 1000):
                once = tiny()(tensor(ids[:count]), logits_to_keep=1).logits[0, 0]
                torch.testing.assert_close(step, once, rtol=0, atol=1e-4)


class G22(Case):
    """inputs_embeds: refused, since libwkv reads ids."""

    def test(self):
        cache, embeds = with_past(tiny(), some_ids(5)), torch.zeros(1, 3, 64)
        self.refuse(NotImplementedError, 'token ids', tiny().generate, inputs_embeds=embeds, cache=cache)
        self.refuse(NotImplementedError, 'token ids', tiny(), inputs_embeds=embeds, cache=cache)
        self.refuse(NotImplementedError, "libwkv's", tiny().get_input_embeddings)


class G23(Case):
    """logits_to_keep: shapes and values."""

    def test(self):
        ids = tensor(some_ids(9), some_ids(9, 2))
        every = tiny()(ids).logits
        self.assertEqual((list(every.shape), every.dtype), ([2, 9, 331], torch.float32))
        for keep, columns in ((0, slice(None)), (1, slice(-1, None)), (4, slice(-4, None)), (9, slice(None)),
                              (torch.tensor([0, 5]), [0, 5])):
            cache = RWKV7Cache()
            torch.testing.assert_close(tiny()(ids, logits_to_keep=keep, past_key_values=cache).logits, every[:, columns],
                                       rtol=0, atol=1e-4)
            self.assertEqual(cache.get_seq_length(), 9)
        for batch in (padded([1, 2, 3, 4], [5, 6]), padded([1, 2, 3, 4], [5, 6], left=False)):
            last, every = tiny()(**batch, logits_to_keep=1).logits, tiny()(**batch).logits
            torch.testing.assert_close(last, every[:, -1:], rtol=0, atol=1e-4)


class G24(Case):
    """Scores and dictionaries in the shapes of transformers; hidden states and attentions are refused."""

    def test(self):
        output = tiny().generate(tensor(some_ids(5), some_ids(5, 2)), max_new_tokens=4, output_scores=True,
                                 output_logits=True, return_dict_in_generate=True, eos_token_id=None)
        self.assertEqual(list(output.sequences.shape), [2, 9])
        self.assertEqual([list(score.shape) for score in output.scores + output.logits], [[2, 331]] * 8)
        scores = tiny().compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
        self.assertEqual(list(scores.shape), [2, 4])
        logits, cache = tiny()(tensor(some_ids(5)), return_dict=False)
        self.assertIsInstance(cache, RWKV7Cache)
        self.assertEqual(list(tiny()(tensor(some_ids(5)), use_cache=False).keys()), ['logits'])

    def test_refused(self):
        cache = with_past(tiny(), some_ids(5))
        for name in ('output_hidden_states', 'output_attentions'):
            self.refuse(NotImplementedError, name, tiny(), tensor([5]), cache=cache, **{name: True})
            self.refuse(NotImplementedError, name, tiny().generate, tensor(some_ids(5) + [5]), cache=cache, max_new_tokens=2,
                        return_dict_in_generate=True, **{name: True})


class G29(Case):
    """reorder_cache, batch_select_indices, batch_repeat_interleave: rows exactly permuted."""

    def test(self):
        rows = [some_ids(5, seed) for seed in range(3)]
        first = with_past(tiny(), tensor(*rows))
        for method, argument, order in (('reorder_cache', torch.tensor([2, 2, 0]), [2, 2, 0]),
                                        ('batch_select_indices', torch.tensor([1]), [1]),
                                        ('batch_select_indices', [2, 0], [2, 0]),
                                        ('batch_repeat_interleave', 2, [0, 0, 1, 1, 2, 2])):
            cache = first.clone()
            getattr(cache, method)(argument)
            self.assertEqual(cache.tokens, [rows[i] for i in order])
            for ours, source in zip(cache, first):
                for name in ('recurrent_state', 'conv_state', 'ffn_state'):
                    self.assertTrue(torch.equal(ours[name], source[name][order]))
        before = content(first)
        for wrong in ([3], [-1], torch.tensor([0, 1, 5])):
            with self.assertRaises(IndexError):
                first.reorder_cache(wrong)
        with self.assertRaises(ValueError):
            first.batch_repeat_interleave(0)
        self.assertUnchanged(first, before)


class G30(Case):
    """crop(-n) to kept positions is exact; elsewhere a clear error; is_croppable promises no more."""

    def test_marks(self):
        cache = with_past(tiny(), tensor(some_ids(9), some_ids(9, 2)))
        self.assertFalse(cache.is_croppable)
        before = content(cache)
        self.assertEqual(cache.mark(), 9)
        tiny()(tensor([1, 2, 3], [4, 5, 6]), past_key_values=cache)
        later = content(cache)
        for wrong, text in ((-1, r'only at \[9\]'), (-4, 'kept'), (-99, 'kept'), (3, 'negative')):
            with self.assertRaisesRegex(ValueError, text):
                cache.crop(wrong)
            self.assertUnchanged(cache, later)
        cache.crop(0)
        self.assertUnchanged(cache, later)
        cache.crop(-3)
        self.assertUnchanged(cache, before)

    def test_checkpoints(self):
        ids = some_ids(20)
        cache = RWKV7Cache(tiny(), checkpoint_every_tokens=4, checkpoints_count_max=2)
        for token in ids:
            tiny()(tensor([token]), past_key_values=cache)
        self.assertEqual(cache.kept_lengths, [16, 20])
        cache.crop(-4)
        self.assertUnchanged(cache, content(with_past(tiny(), ids[:16])))

    def test_padding_is_no_place_to_go_back_to(self):
        cache = RWKV7Cache(tiny(), checkpoint_every_tokens=1)
        tiny()(**padded([1, 2, 3], [4]), past_key_values=cache)
        tiny()(tensor([5], [6]), past_key_values=cache)
        self.assertEqual(cache.kept_lengths, [3, 4])
        cache = RWKV7Cache(tiny(), checkpoint_every_tokens=1)
        tiny()(tensor([1, 2, 3], [4, 5, 6]), past_key_values=cache)
        tiny()(tensor([7], [0]), attention_mask=tensor([1], [0]), past_key_values=cache)
        tiny()(tensor([8], [9]), past_key_values=cache)
        self.assertEqual(cache.kept_lengths, [4, 5])
        cache.crop(-1)
        self.assertEqual(cache.tokens, [[1, 2, 3, 7], [4, 5, 6]])


class G37(Case):
    """memory_usage() is the formula: layers * (2 * width + width * head_size) floats a row."""

    def test(self):
        self.assertEqual(RWKV7Cache().memory_usage(), 0)
        for model, layers, width in ((tiny(), 2, 64), (story(), 8, 256)):
            cache = with_past(model, tensor([5, 6], [7, 8], [9, 10]))
            self.assertEqual(cache.memory_usage(), 3 * layers * (2 * width + width * 64) * 4)
            cache.offload()
            cache.prefetch()
            self.assertEqual(cache.get_seq_length(), 2)


class _Updated:
    """A cache driven as flash-linear-attention drives its own: update() of every layer with the number of new tokens. Here
    the ids are read when the last layer is updated."""

    def __init__(self, batch=1):
        self.cache, self.batch = RWKV7Cache(), batch

    def update(self, layer_idx, offset):
        past = self.cache.get_seq_length(layer_idx)
        if layer_idx == 1:
            rows = [some_ids(offset, seed) for seed in range(self.batch)]
            tiny()(tensor(*rows), past_key_values=self.cache, logits_to_keep=1)
        return past


class G40(Case):
    """The tests of flash-linear-attention's cache, those without attention windows."""

    def chunks(self, batch, counts):
        driven, seen = _Updated(batch), 0
        for count in counts:
            pasts = {driven.update(layer, count) for layer in range(2)}
            self.assertEqual(pasts, {seen})  # every layer sees the same past
            seen += count
            self.assertEqual({driven.cache.get_seq_length(layer) for layer in range(2)}, {seen})
        return driven.cache

    def test_cache_per_layer_seq_length(self):
        self.chunks(2, [10])
        self.chunks(8, [20])

    def test_cache_incremental_update(self):
        self.chunks(1, [5] * 4)
        self.chunks(2, [10] * 3)

    def test_cache_get_seq_length_nonexistent_layer(self):
        cache = self.chunks(1, [4])
        self.assertEqual([cache.get_seq_length(layer) for layer in (None, 0, 2, 100)], [4, 4, 0, 0])
        self.assertEqual(RWKV7Cache().get_seq_length(5), 0)

    def test_cache_reset(self):
        cache = self.chunks(1, [5])
        cache.reset()
        self.assertEqual((len(cache), cache.get_seq_length()), (2, 0))
        tiny()(tensor([1, 2]), past_key_values=cache)
        self.assertEqual(cache.get_seq_length(), 2)

    def test_cache_from_legacy_preserves_seen_tokens(self):
        cache = self.chunks(2, [17])
        self.assertEqual(RWKV7Cache.from_legacy_cache(cache.to_legacy_cache(), 17, model=tiny()).get_seq_length(), 17)

    def test_legacy_cache_tuple_round_trip(self):
        cache = self.chunks(2, [17])
        legacy = cache.to_legacy_cache()
        again = RWKV7Cache.from_legacy_cache(legacy, seen_tokens=17, model=tiny()).to_legacy_cache()
        for one, other in zip(legacy, again):
            self.assertEqual(one.keys(), other.keys())
            self.assertTrue(all(torch.equal(one[name], other[name]) for name in one if one[name] is not None))

    def test_cache_decode_all_layers_see_same_past_length(self):
        self.chunks(1, [1] * 5)
        self.chunks(2, [7, 1, 1])

    def test_cache_incremental_decode_consistency(self):
        for counts in ([5] * 4, [10] * 8):
            split, whole = self.chunks(1, counts), RWKV7Cache()
            tiny()(tensor(split.tokens[0]), past_key_values=whole)
            for one, other in zip(split, whole):
                torch.testing.assert_close(one['recurrent_state'], other['recurrent_state'], rtol=0, atol=1e-4)


class Inputs(Case):
    def test_wrong_ids(self):
        cache = with_past(tiny(), some_ids(5))
        for wrong in (None, torch.tensor([1, 2]), torch.zeros(1, 3), torch.zeros(1, 0, dtype=torch.long)):
            self.refuse(ValueError, 'input_ids', tiny(), wrong, cache=cache)
        for token in (331, -1, 2 ** 40, -2 ** 40):
            self.refuse(ValueError, str(token), tiny(), tensor([1, token]), cache=cache)
        self.refuse(ValueError, 'input_ids', tiny().generate, cache=cache)
        self.refuse(ValueError, 'bogus', tiny().generate, tensor(some_ids(5) + [1]), cache=cache, bogus=3)
        self.refuse(ValueError, 'holds 1', tiny(), tensor([1], [2]), cache=cache)
        self.refuse(ValueError, 'all of it is padding', tiny().generate, tensor([1], [2]), attention_mask=tensor([1], [0]))

    def test_wrong_masks(self):
        cache = with_past(tiny(), some_ids(5))
        for shape in ((1, 3), (2, 2), (1, 6), (1, 8), (1, 1, 2, 2)):
            self.refuse(ValueError, 'shape', tiny(), tensor([1, 2]), attention_mask=torch.ones(shape), cache=cache)
        self.refuse(ValueError, '0 and 1', tiny(), tensor([1, 2]), attention_mask=tensor([2, 1]), cache=cache)

    def test_other_integers_and_strides(self):
        plain = tiny()(tensor(some_ids(6))).logits
        wide = tensor(some_ids(6)).repeat_interleave(2, 1)[:, ::2]
        for ids in (tensor(some_ids(6)).int(), tensor(some_ids(6)).short(), wide):
            self.assertTrue(torch.equal(tiny()(ids).logits, plain))

    def test_padding_outside_the_vocabulary(self):
        batch = padded([1, 2, 3], [4])
        batch['input_ids'][1, :2] = -100
        torch.testing.assert_close(tiny()(**batch).logits[1, -1], tiny()(tensor([4])).logits[0, -1], rtol=0, atol=1e-4)

    def test_a_row_with_nothing_to_read(self):
        cache = with_past(tiny(), tensor([1, 2], [3, 4]))
        logits = tiny()(tensor([5], [6]), attention_mask=tensor([1], [0]), past_key_values=cache).logits
        self.assertEqual((cache.tokens, cache.get_seq_length()), ([[1, 2, 5], [3, 4]], 3))
        self.assertFalse(logits[1].any())
        cache = RWKV7Cache()
        self.assertFalse(tiny()(tensor([5, 6]), attention_mask=tensor([0, 0]), past_key_values=cache).logits.any())
        self.assertEqual((cache.tokens, cache.get_seq_length()), ([[]], 2))
        tiny()(tensor([7]), past_key_values=cache)
        self.assertEqual(cache.tokens, [[7]])

    def test_begin_token(self):
        ids = tiny().generate(bos_token_id=5, max_new_tokens=3, eos_token_id=330)
        self.assertEqual(ids.tolist(), [[5] + expected([5], 3)])

    def test_ids_of_a_loop_by_hand(self):
        cache, ids, said_by_hand = RWKV7Cache(), tensor(some_ids(5)), []
        for _ in range(5):
            logits = tiny()(ids, past_key_values=cache, logits_to_keep=1).logits
            ids = logits[:, -1].argmax(-1, keepdim=True)
            said_by_hand.append(int(ids))
        self.assertEqual(said_by_hand, expected(some_ids(5), 5))


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    support.main()
