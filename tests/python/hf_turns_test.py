# SPDX-License-Identifier: Apache-2.0
"""wkv.hf over several turns: what a cache has read, and what it refuses. A class Gnn is G-nn of a list of what users of
recurrent models with transformers rely on; its docstring is the line of that list."""
import copy
import io
import pathlib
import pickle
import signal
import subprocess
import sys
import tempfile
import unittest
import warnings
import zipfile

from hf_support import (END, TINY, Case, Favour, RWKV7Cache, content, expected, is_same, numpy,
                        output_cache, padded, said, some_ids, story, support, tensor, tiny, torch, with_past)
from transformers import DynamicCache

import wkv

try:
    import fla.models.utils as fla
except ImportError:
    fla = None


class G01(Case):
    """generate(ids) without a cache works, and the output carries our cache."""

    def test(self):
        ids = some_ids(9)
        self.assertEqual(said(tiny(), ids, 12), [expected(ids, 12)])
        output = tiny().generate(tensor(ids), max_new_tokens=4, return_dict_in_generate=True)
        self.assertIsInstance(output_cache(output), RWKV7Cache)
        self.assertEqual(output_cache(output).tokens, output.sequences[:, :-1].tolist())

    def test_a_batch(self):
        rows = [some_ids(7, seed) for seed in range(3)]
        self.assertEqual(said(tiny(), tensor(*rows), 6), [expected(row, 6) for row in rows])


class G02(Case):
    """A fresh cache given: the same, and the cache has read it."""

    def test(self):
        ids, cache = some_ids(9), RWKV7Cache()
        self.assertEqual(said(tiny(), ids, 12, past_key_values=cache), [expected(ids, 12)])
        self.assertEqual(cache.get_seq_length(), 9 + 11)
        output = tiny().generate(tensor(ids), past_key_values=RWKV7Cache(tiny()), use_cache=True, max_new_tokens=2,
                                 return_dict_in_generate=True)
        self.assertEqual(output_cache(output).get_seq_length(), 10)

    def test_both_names_of_the_argument(self):
        output = tiny()(tensor(some_ids(4)), cache=(cache := RWKV7Cache()))
        self.assertIs(output_cache(output), cache)
        self.assertIs(output.past_key_values, cache)
        with self.assertRaises(ValueError):
            tiny()(tensor(some_ids(4)), cache=cache, past_key_values=cache)

    def test_a_wkv_cache(self):
        ids, cache = some_ids(30), tiny().wkv.cache()
        cache.step(ids)
        more = ids + some_ids(3, 2)
        self.assertEqual(said(tiny(), more, 5, past_key_values=cache), [expected(more, 5)])
        self.assertEqual(cache.position, 30 + 3 + 4)
        with self.assertRaisesRegex(ValueError, 'do not begin with'):
            said(tiny(), some_ids(60, 7), 5, past_key_values=cache)


class G03(Case):
    """An empty DynamicCache asks for a new one."""

    def test(self):
        ids, empty = some_ids(9), DynamicCache()
        self.assertEqual(said(tiny(), ids, 5, past_key_values=empty), [expected(ids, 5)])
        self.assertEqual(empty.get_seq_length(), 0)
        self.assertIsInstance(output_cache(tiny()(tensor(ids), past_key_values=DynamicCache())), RWKV7Cache)


class G04(Case):
    """A filled cache of another kind, or a tuple, is refused."""

    def test(self):
        filled = DynamicCache()
        filled.update(torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 4, 8), 0)
        legacy = ((torch.zeros(1), torch.zeros(1)),)
        for wrong, text in ((filled, 'attention'), (legacy, 'tuple'), ([1], 'list'), ('x', 'str')):
            for function in (tiny().generate, tiny()):
                with self.subTest(str(type(wrong))):
                    self.refuse(TypeError, text, function, tensor(some_ids(5)), past_key_values=wrong)

    @unittest.skipUnless(fla, 'flash-linear-attention is not installed')
    def test_a_cache_of_flash_linear_attention(self):
        self.refuse(TypeError, 'from_fla', tiny().generate, tensor(some_ids(5)), past_key_values=fla.Cache())

    def test_a_cache_of_another_model(self):
        cache = with_past(tiny(), some_ids(5))
        self.refuse(wkv.MismatchError, 'another model', story(), tensor([5]), cache=cache)


class G05(Case):
    """A second turn with the whole history is one run over all ids, and only new ids are computed."""

    def test(self):
        cache, ids = RWKV7Cache(), some_ids(9)
        for turn in range(4):
            ids = ids + said(tiny(), ids, 6, past_key_values=cache)[0] + some_ids(4, turn)
            state = cache.caches[0]
            state.mark()  # a reset would forget the mark
            self.assertEqual(said(tiny(), ids, 6, past_key_values=cache), [expected(ids, 6)])
            self.assertIs(cache.caches[0], state)
            self.assertIn(state.kept_positions[-1], range(1, len(ids)))
            self.assertEqual(state.position, len(ids) + 5)
            ids = cache.tokens[0] + some_ids(2, turn + 50)

    def test_scores_are_those_of_one_run(self):
        cache, ids = RWKV7Cache(), some_ids(9)
        ids = ids + said(tiny(), ids, 6, past_key_values=cache)[0] + some_ids(5, 2)
        options = {'max_new_tokens': 5, 'output_logits': True, 'return_dict_in_generate': True, 'eos_token_id': None}
        once, twice = tiny().generate(tensor(ids), **options), tiny().generate(tensor(ids), past_key_values=cache, **options)
        torch.testing.assert_close(torch.stack(twice.logits), torch.stack(once.logits), rtol=0, atol=1e-4)

    def test_a_batch_that_is_padded_anew_each_turn(self):
        rows, cache = [some_ids(12), some_ids(3, 2), some_ids(7, 3)], RWKV7Cache()

        def answer_all():
            output = tiny().generate(**padded(*rows), past_key_values=cache, max_new_tokens=5, eos_token_id=None)
            return output[:, -5:].tolist()

        for turn, more in enumerate(((2, 30, 1), (9, 1, 20))):
            answers = answer_all()
            self.assertEqual(answers, [expected(row, 5) for row in rows])
            rows = [row + answer + some_ids(count, turn + 9) for row, answer, count in zip(rows, answers, more)]
        answers = answer_all()
        self.assertEqual(answers, [expected(row, 5) for row in rows])
        self.assertEqual(cache.tokens, [row + answer[:-1] for row, answer in zip(rows, answers)])

    def test_an_explicit_mask_of_ones(self):
        cache, ids = RWKV7Cache(), some_ids(9)
        ids = ids + said(tiny(), ids, 6, past_key_values=cache)[0] + some_ids(4, 2)
        mask = torch.ones_like(tensor(ids))
        self.assertEqual(said(tiny(), ids, 6, past_key_values=cache, attention_mask=mask), [expected(ids, 6)])


class G06(Case):
    """A second turn with new ids alone and a long mask is the same."""

    def setUp(self):
        self.cache, ids = RWKV7Cache(), some_ids(9)
        self.answer = said(tiny(), ids, 6, past_key_values=self.cache)[0]
        self.new = some_ids(4, 2)
        self.ids = ids + self.answer + self.new

    def check(self, new, mask_columns):
        options = {'past_key_values': self.cache, 'attention_mask': torch.ones((1, mask_columns), dtype=torch.long)}
        self.assertEqual(said(tiny(), new, 6, **options), [expected(self.ids, 6)])
        self.assertEqual(self.cache.tokens[0][:len(self.ids)], self.ids)

    def test_with_the_last_id_of_the_answer(self):
        self.check(self.answer[-1:] + self.new, len(self.ids))

    def test_without_the_last_id_of_the_answer_which_the_cache_remembers(self):
        self.check(self.new, len(self.ids))

    def test_turn_after_turn(self):
        for turn in range(3):
            self.check(self.new, len(self.ids))
            self.new = some_ids(3, turn + 20)
            self.ids = self.ids + expected(self.ids, 6) + self.new

    def test_a_mask_that_does_not_fit(self):
        for columns in (len(self.ids) + 1, len(self.ids) - 2, len(self.new) + 1, len(self.new) - 1):
            self.refuse(ValueError, 'mask', tiny().generate, tensor(self.new), cache=self.cache, max_new_tokens=2,
                        attention_mask=torch.ones((1, columns), dtype=torch.long))

    def test_what_was_said_last_is_forgotten_when_others_read_on(self):
        tiny()(tensor([7]), past_key_values=self.cache)
        columns = self.cache.get_seq_length() + 1 + len(self.new)
        self.refuse(ValueError, 'mask', tiny().generate, tensor(self.new), cache=self.cache, max_new_tokens=2,
                    attention_mask=torch.ones((1, columns), dtype=torch.long))

    def test_a_mask_of_a_past_that_is_not_there(self):
        mask = torch.ones((1, len(self.ids)), dtype=torch.long)
        for cache in (None, RWKV7Cache()):
            with self.assertRaisesRegex(ValueError, 'has read nothing'):
                tiny().generate(tensor(self.new), past_key_values=cache, attention_mask=mask, max_new_tokens=2)

    def test_a_batch_where_a_row_has_ended(self):
        rows, new = [some_ids(6), some_ids(6, 2)], [some_ids(3, 3), some_ids(3, 4)]
        end = expected(rows[0], 3)[-1]
        cache = RWKV7Cache()
        turn = tiny().generate(tensor(*rows), past_key_values=cache, max_new_tokens=8, eos_token_id=end, pad_token_id=END)
        said_by_0 = expected(rows[0], 8, ends=[end])
        self.assertEqual(cache.tokens[0], rows[0] + said_by_0[:-1])
        mask = torch.ones((2, turn.shape[1] + 3), dtype=torch.long)
        mask[0, 6 + len(said_by_0):turn.shape[1]] = 0  # padding
        answers = tiny().generate(tensor(*new), past_key_values=cache, max_new_tokens=4, attention_mask=mask,
                                  eos_token_id=None)
        full = [rows[0] + said_by_0 + new[0], turn[1].tolist() + new[1]]
        self.assertEqual(answers[:, 3:].tolist(), [expected(row, 4) for row in full])
        self.assertEqual([row[:-3] for row in cache.tokens], full)


class G07(Case):
    """A second turn with new ids and no mask: an error, never a negative slice."""

    def test(self):
        cache = RWKV7Cache()
        said(tiny(), some_ids(9), 6, past_key_values=cache)
        for count in (1, 4, 14, 15, 16, 40):
            self.refuse(ValueError, 'cache has read', tiny().generate, tensor(some_ids(count, 5)), cache=cache,
                        max_new_tokens=3)


class G08(Case):
    """A history no longer than the cache: an error, and no change."""

    def test(self):
        cache, ids = RWKV7Cache(), some_ids(9)
        said(tiny(), ids, 6, past_key_values=cache)
        known = cache.tokens[0]
        for history in (known, known[:-1], ids):
            self.refuse(ValueError, 'cache has read', tiny().generate, tensor(history), cache=cache, max_new_tokens=3)
        again = known + [expected(known, 1)[0]]
        self.assertEqual(said(tiny(), again, 3, past_key_values=cache), [expected(again, 3)])


class G09(Case):
    """A history that differs from what was read: an error that says where."""

    def test(self):
        cache, ids = RWKV7Cache(), some_ids(9)
        said(tiny(), ids, 6, past_key_values=cache)
        history = cache.tokens[0] + some_ids(5, 2)
        for at in (0, 5, 8, 13):
            other = list(history)
            other[at] = other[at] % 300 + 1
            self.refuse(ValueError, f'differ at {at}', tiny().generate, tensor(other), cache=cache, max_new_tokens=3)

    def test_one_row_of_a_batch(self):
        cache, rows = RWKV7Cache(), [some_ids(5), some_ids(5, 2)]
        tiny().generate(tensor(*rows), past_key_values=cache, max_new_tokens=3)
        history = [row + [1, 2] for row in cache.tokens]
        history[1][4] += 1
        self.refuse(ValueError, 'row 1 .*differ at 4', tiny().generate, tensor(*history), cache=cache, max_new_tokens=3)

    def test_a_kept_length_is_the_way_back(self):
        cache, ids = RWKV7Cache(), some_ids(9)
        tiny()(tensor(ids), past_key_values=cache)
        length = cache.mark()
        tiny()(tensor(some_ids(5, 2)), past_key_values=cache)
        cache.crop(length - cache.get_seq_length())
        other = ids + some_ids(4, 3)
        self.assertEqual(said(tiny(), other, 3, past_key_values=cache), [expected(other, 3)])

    def test_a_state_that_was_stepped_elsewhere(self):
        cache = with_past(tiny(), some_ids(9))
        cache.caches[0].step([1])
        self.refuse(ValueError, 'changed by others', tiny(), tensor([1]), cache=cache)


class G10(Case):
    """After reset() as fresh."""

    def test(self):
        cache, ids = RWKV7Cache(), some_ids(9)
        tiny().generate(tensor(some_ids(5, 3), some_ids(5, 4)), past_key_values=cache, max_new_tokens=3)
        cache.reset()
        self.assertEqual((cache.get_seq_length(), cache.tokens), (0, [[], []]))
        self.assertEqual(said(tiny(), ids, 6, past_key_values=cache), [expected(ids, 6)])  # of another batch as well
        cache.reset()
        self.assertEqual(said(tiny(), ids, 6, past_key_values=cache), [expected(ids, 6)])


class G11(Case):
    """copy.deepcopy and clone(): both sides go on by themselves."""

    def test(self):
        ids = some_ids(9)
        cache = with_past(tiny(), ids)
        for fork in (cache.clone(), copy.deepcopy(cache), copy.copy(cache), copy.deepcopy({'in': [cache]})['in'][0]):
            one, other = ids + some_ids(3, 2), ids + some_ids(3, 3)
            before = content(cache)
            self.assertEqual(said(tiny(), one, 4, past_key_values=fork), [expected(one, 4)])
            self.assertUnchanged(cache, before)
            self.assertEqual(said(tiny(), other, 4, past_key_values=cache.clone()), [expected(other, 4)])
        self.assertEqual(copy.deepcopy(RWKV7Cache()).get_seq_length(), 0)

    def test_what_was_said_last_goes_along(self):
        cache, ids = RWKV7Cache(), some_ids(9)
        ids = ids + said(tiny(), ids, 4, past_key_values=cache)[0] + [3]
        mask = torch.ones((1, len(ids)), dtype=torch.long)
        for fork in (cache.clone(), pickle.loads(pickle.dumps(cache))):
            self.assertEqual(said(tiny(), [3], 3, past_key_values=fork, attention_mask=mask), [expected(ids, 3)])


class G12(Case):
    """Pickled or saved, and loaded in another process: the same continuation, and the length is kept."""

    def test_another_process(self):
        ids = some_ids(9)
        cache = RWKV7Cache()
        ids = ids + said(tiny(), ids, 5, past_key_values=cache)[0] + [7, 8]
        with tempfile.TemporaryDirectory() as folder:
            saved, pickled = pathlib.Path(folder) / 'разговор.zip', pathlib.Path(folder) / 'cache.pickle'
            cache.save(saved)
            pickled.write_bytes(pickle.dumps(cache))
            program = f'''
import pickle, torch
from wkv.hf import RWKV7Cache, RWKV7ForCausalLM
model = RWKV7ForCausalLM.from_pretrained({str(TINY)!r}, device='cpu', reproducible=True)
for cache in (RWKV7Cache.load({str(saved)!r}, model), pickle.loads(open({str(pickled)!r}, 'rb').read())):
    print(cache.get_seq_length(), model.generate(torch.tensor([{ids}]), past_key_values=cache, max_new_tokens=4,
                                                 eos_token_id=None)[0, -4:].tolist())
'''
            done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
        self.assertEqual(done.stdout.splitlines(), [f'13 {expected(ids, 4)}'] * 2, done.stderr)

    def test_files(self):
        cache = with_past(tiny(), padded([1, 2, 3], [4])['input_ids'])
        cache.mark()
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / 'cache'
            cache.save(path)
            self.assertTrue(is_same(content(RWKV7Cache.load(path, tiny())), content(cache)))
            self.assertEqual([file.name for file in path.parent.iterdir()], ['cache'])
            with self.assertRaises(wkv.MismatchError):
                RWKV7Cache.load(path, story())
            data = path.read_bytes()
            for damaged in (data[:len(data) // 2], data[:-1], b'PK', data.replace(b'"columns"', b'"colunms"')):
                path.write_bytes(damaged)
                with self.assertRaises(wkv.FormatError):
                    RWKV7Cache.load(path, tiny())
            with zipfile.ZipFile(io.BytesIO(data)) as whole, zipfile.ZipFile(path, 'w') as shortened:
                for name in whole.namelist():
                    shortened.writestr(name, whole.read(name)[:-4] if name == '0.tokens' else whole.read(name))
            with self.assertRaisesRegex(wkv.FormatError, 'at position 3 and tokens up to 2'):
                RWKV7Cache.load(path, tiny())
            with self.assertRaises(FileNotFoundError):
                cache.save(pathlib.Path(folder) / 'none/cache')
            with self.assertRaises(FileNotFoundError):
                RWKV7Cache.load(pathlib.Path(folder) / 'none', tiny())

    def test_a_file_of_wkv_cache(self):
        ids, state = some_ids(40), tiny().wkv.cache()
        state.step(ids)
        with tempfile.TemporaryDirectory() as folder:
            state.save(pathlib.Path(folder) / 'c.wkv')
            cache = RWKV7Cache.load(pathlib.Path(folder) / 'c.wkv', tiny())
        self.assertEqual((cache.get_seq_length(), cache.tokens), (40, [ids[-16:]]))
        more = ids + [3, 4]
        self.assertEqual(said(tiny(), more, 3, past_key_values=cache), [expected(more, 3)])

    def test_an_empty_cache(self):
        self.assertEqual(pickle.loads(pickle.dumps(RWKV7Cache())).get_seq_length(), 0)


class G13(Case):
    """get_seq_length() after prefill, decode and reset, the same for every layer."""

    def lengths(self, cache):
        found = {cache.get_seq_length(i) for i in range(len(cache))} | {cache.get_seq_length(), cache.get_seq_length(None)}
        self.assertEqual(len(found), 1)
        return found.pop()

    def test(self):
        cache = RWKV7Cache()
        self.assertEqual(self.lengths(cache), 0)
        tiny()(tensor(some_ids(9)), past_key_values=cache)
        self.assertEqual(self.lengths(cache), 9)
        for i in range(3):
            tiny()(tensor([5]), past_key_values=cache)
            self.assertEqual(self.lengths(cache), 10 + i)
        self.assertEqual((cache.get_seq_length(99), cache.get_max_cache_shape()), (0, -1))
        self.assertEqual(cache.get_mask_sizes(3, 0), (15, 0))
        cache.reset()
        self.assertEqual(self.lengths(cache), 0)

    def test_padding_counts(self):
        cache = RWKV7Cache()
        tiny()(**padded([1, 2, 3, 4, 5], [6]), past_key_values=cache)
        self.assertEqual((self.lengths(cache), cache.tokens), (5, [[1, 2, 3, 4, 5], [6]]))


class G33(Case):
    """End 0, padding 0: it stops, and padding changes no state."""

    def test(self):
        rows, cache = [some_ids(5), some_ids(5, 2)], RWKV7Cache()
        output = tiny().generate(tensor(*rows), past_key_values=cache, max_new_tokens=9, eos_token_id=0, pad_token_id=0,
                                 logits_processor=[Favour((2, 0, END), (6, 1, END))])
        self.assertEqual(output.shape[1], 5 + 7)
        self.assertEqual(output[0, 7:].tolist(), [END] * 5)
        self.assertEqual(cache.tokens, [output[0, :7].tolist(), output[1, :11].tolist()])
        for row, state in zip(cache.tokens, cache.caches):
            alone = tiny().wkv.cache()
            alone.step(row)
            numpy.testing.assert_allclose(state.read_state(1, 'wkv'), alone.read_state(1, 'wkv'), rtol=0, atol=1e-5)

    def test_the_default(self):
        config = tiny().generation_config
        self.assertEqual((config.eos_token_id, config.pad_token_id), (END, END))
        ids = tensor(some_ids(5))
        self.assertEqual(tiny().generate(ids, max_new_tokens=9, logits_processor=[Favour((3, 0, END))]).shape[1], 9)

    def test_the_next_turn_of_a_batch(self):
        rows, cache = [some_ids(5), some_ids(5, 2)], RWKV7Cache()
        output = tiny().generate(tensor(*rows), past_key_values=cache, max_new_tokens=6, pad_token_id=0,
                                 eos_token_id=[0, 330], logits_processor=[Favour((1, 0, END))])
        full = [output[0, :7].tolist() + [3, 4], output[1].tolist() + [5]]
        answers = tiny().generate(**padded(*full), past_key_values=cache, max_new_tokens=4, eos_token_id=None)
        self.assertEqual(answers[:, -4:].tolist(), [expected(row, 4) for row in full])


class G34(Case):
    """An exception in the middle: the cache is valid at the last id it has read."""

    def test(self):
        class Fail(Favour):
            def __call__(self, input_ids, scores):
                if self.step == 3:
                    raise RuntimeError('mine')
                return super().__call__(input_ids, scores)

        cache, ids = RWKV7Cache(), some_ids(5)
        with self.assertRaisesRegex(RuntimeError, 'mine'):
            tiny().generate(tensor(ids), past_key_values=cache, max_new_tokens=9, logits_processor=[Fail()],
                            eos_token_id=None)
        self.assertEqual(cache.tokens, [ids + expected(ids, 4)])
        self.assertUnchanged(cache, content(with_past(tiny(), cache.tokens[0])))
        more = cache.tokens[0] + [8]
        self.assertEqual(said(tiny(), more, 4, past_key_values=cache), [expected(more, 4)])

    def test_ctrl_c_during_a_step(self):
        ids = some_ids(5)
        cache, long = with_past(tiny(), ids), some_ids(20_000, 2)

        def interrupt():
            support.wait_until(lambda: support.is_busy(cache.caches[0]) or is_over)
            if not is_over:
                signal.raise_signal(signal.SIGINT)

        is_over = []
        # a shell without a terminal has it ignored
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
        with support.running(interrupt):
            try:
                tiny()(tensor(long), past_key_values=cache, logits_to_keep=1)
            except KeyboardInterrupt:
                pass
            is_over.append(True)
        self.assertIn(cache.tokens, ([ids], [ids + long]))
        more = cache.tokens[0] + [8]
        self.assertEqual(said(tiny(), more, 4, past_key_values=cache), [expected(more, 4)])


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    support.main()
