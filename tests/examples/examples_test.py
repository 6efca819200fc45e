# SPDX-License-Identifier: Apache-2.0
"""Runs the examples as a user would: output, exit codes, one-line errors, terminals and Ctrl-C."""
import json
import math
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = pathlib.Path(os.environ['WKV_EXAMPLES_DIR'])
STORY_MODEL = ROOT / 'examples/models/tales-8m.gguf'
NEWLINES = (11, 291, 1175)  # tokens of the story model that hold one
NAMES = ('generate', 'chat', 'perplexity', 'info', 'convert')
TALE = ('Once upon a time there was a king who had three sons. The eldest was proud, the second was greedy, '
        'but the youngest had a kind heart, and everybody loved him.\n') * 8


def run(program, *arguments, stdin='', code=0):
    """Runs in an empty directory, as from a fresh shell; checks the exit code and gives stdout, stderr."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([PROGRAMS / program, *map(str, arguments)], input=stdin.encode(), capture_output=True,
                              cwd=folder, timeout=240)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == code, f'{program} {arguments}: exit code {done.returncode}, stderr: {err}'
    return out, err


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


class Terminal:
    """A program whose standard streams are a terminal."""

    def __init__(self, program, *arguments):
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.execv(PROGRAMS / program, [program, *map(str, arguments)])
        self.text = ''

    def read_until(self, wanted, seconds=120):
        end = time.monotonic() + seconds
        while not re.search(wanted, self.text):
            assert time.monotonic() < end, f'no {wanted!r} in {self.text!r}'
            if not select.select([self.descriptor], [], [], 0.2)[0]:
                continue
            try:
                chunk = os.read(self.descriptor, 65536)
            except OSError:  # the other end is closed
                chunk = b''
            assert chunk, f'ended without {wanted!r}: {self.text!r}'
            self.text += chunk.decode(errors='replace')

    def type(self, text):
        os.write(self.descriptor, text.encode())

    def exit_code(self):
        try:
            while os.read(self.descriptor, 65536):
                pass
        except OSError:
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Examples(unittest.TestCase):
    def check_error(self, program, *arguments, code, says, stdin=''):
        out, err = run(program, *arguments, stdin=stdin, code=code)
        self.assertEqual(out, '')
        self.assertEqual(len(err.splitlines()), 1, err)
        self.assertTrue(err.startswith(program + ': '), err)
        self.assertIn(says, err)

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name, text=None):
        path = pathlib.Path(self.folder.name) / name
        if text is not None:
            path.write_text(text)
        return path

    # ---- generate

    def test_generate_without_arguments_tells_a_story(self):
        out, err = run('generate', '--max-tokens', 60)
        self.assertTrue(out.startswith('Once upon a time'), out)
        self.assertGreater(len(out.split()), 20, out)
        self.assertEqual(err, '')

    def test_generate_continues_the_prompt(self):
        out, _ = run('generate', 'The king said to his', '-n', 10, '--seed', 1)
        self.assertFalse(out.startswith('The king'), out)
        echoed, _ = run('generate', 'The king said to his', '-n', 10, '--seed', 1, '--echo')
        self.assertEqual(echoed, 'The king said to his' + out)

    def test_generate_takes_prompts_from_everywhere(self):
        options = ('--greedy', '-n', 8)
        direct, _ = run('generate', 'The wolf', *options)
        self.assertEqual(run('generate', '--prompt', 'The wolf', *options)[0], direct)
        self.assertEqual(run('generate', '-f', self.path('prompt.txt', 'The wolf'), *options)[0], direct)
        self.assertEqual(run('generate', '-f', '-', *options, stdin='The wolf')[0], direct)

    def test_generate_repeats_a_seed(self):
        first, _ = run('generate', 'A fox', '-n', 30, '--seed', 7)
        self.assertEqual(run('generate', 'A fox', '-n', 30, '--seed', 7)[0], first)
        self.assertNotEqual(run('generate', 'A fox', '-n', 30, '--seed', 8)[0], first)

    def test_generate_stops_at_text(self):
        whole, _ = run('generate', 'A fox', '-n', 60, '--greedy')
        stop = whole[20:24]
        out, _ = run('generate', 'A fox', '-n', 60, '--greedy', '--stop', stop)
        self.assertEqual(out, whole[:whole.index(stop)] + '\n')

    def test_generate_prints_json(self):
        out, err = run('generate', 'A "fox"', '-n', 12, '--json', '--alternatives', 2, '--stats', '--seed', 3)
        *pieces, summary = json_lines(out)
        self.assertEqual(err, '')
        self.assertEqual(''.join(piece['text'] for piece in pieces), summary['text'])
        self.assertEqual((summary['type'], summary['reason'], summary['seed']), ('summary', 'max_tokens', 3))
        self.assertEqual(summary['generated_tokens'], 12)
        self.assertEqual(len([p for p in pieces if p['token'] >= 0]), 12)
        self.assertEqual(len(pieces[0]['alternatives']), 2)
        self.assertLessEqual(pieces[0]['log_probability'], 0)
        self.assertGreater(summary['stats']['decode_tokens_per_second'], 0)
        self.assertGreater(summary['stats']['roof_bytes_per_second'], 0)

    def test_generate_prints_speed(self):
        out, err = run('generate', '-f', self.path('tale.txt', TALE), '-n', 16, '--stats')
        self.assertRegex(err, r'prompt .* tokens/s')
        self.assertRegex(err, r'decode .* tokens/s')
        self.assertRegex(err, r'memory .* GB/s, \d+ % of the [\d.]+ GB/s')
        self.assertNotIn('tokens/s', out)

    def test_generate_obeys_sampling_options(self):
        options = ('-n', 12, '--seed', 5, '--json')
        tokens = [p['token'] for p in json_lines(run('generate', 'A fox', *options)[0])[:-1]]
        ban = [word for token in set(tokens) for word in ('--ban', token)]
        other = [p['token'] for p in json_lines(run('generate', 'A fox', *options, *ban)[0])[:-1]]
        self.assertFalse(set(tokens) & set(other))
        forced = json_lines(run('generate', 'A fox', *options, '--bias', '100=1000')[0])[:-1]
        self.assertEqual({p['token'] for p in forced if p['token'] >= 0}, {100})
        greedy, _ = run('generate', 'A fox', '-n', 12, '--greedy')
        self.assertEqual(run('generate', 'A fox', '-n', 12, '--top-k', 1)[0], greedy)

    def test_generate_runs_on_other_kernels_and_types(self):
        expected, _ = run('generate', 'A fox', '-n', 12, '--greedy')
        self.assertEqual(run('generate', 'A fox', '-n', 12, '--greedy', '--kernels', 'scalar')[0], expected)
        self.assertEqual(run('generate', 'A fox', '-n', 12, '--greedy', '--weight-type', 'f32', '--threads', 1)[0],
                         expected)

    def test_generate_reports_mistakes(self):
        self.check_error('generate', '-m', 'no-such.pth', code=1, says='no-such.pth')
        self.check_error('generate', '-f', 'no-such.txt', code=1, says='no-such.txt')
        self.check_error('generate', '-m', self.path('x', 'rubbish'), code=1, says='')
        self.check_error('generate', '--no-such-option', code=2, says='no-such-option')
        self.check_error('generate', '--temperature', 'warm', code=2, says='warm')
        self.check_error('generate', '--temperature', '0', code=2, says='temperature')
        self.check_error('generate', '--max-tokens', '0', code=2, says='max-tokens')
        self.check_error('generate', '--weight-type', 'q9', code=2, says='q9')
        self.check_error('generate', '--kernels', 'abacus', code=1, says='abacus')
        self.check_error('generate', 'one', 'two', code=2, says='two')
        self.check_error('generate', '--bias', 'x', code=2, says='bias')
        self.check_error('generate', '--memory-limit-mb', '1', code=1, says='')

    def test_generate_ends_cleanly_on_interrupt(self):
        program = subprocess.Popen([PROGRAMS / 'generate', '-n', '1000000', '--json'], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        program.stdout.readline()
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=60)
        self.assertEqual(program.returncode, 130)
        self.assertEqual(json.loads(out.decode().splitlines()[-1])['reason'], 'interrupted')
        self.assertEqual(err, b'')

    def test_generate_shows_progress_only_on_a_terminal(self):
        tale = self.path('long.txt', TALE * 4)
        arguments = ('-f', tale, '-n', 1, '--kernels', 'scalar', '--threads', 1, '--chunk-tokens', 8)
        terminal = Terminal('generate', *arguments)
        terminal.read_until(r'reading \[[#.]+\] +\d+ %  [\d,]+ of [\d,]+ tokens')
        terminal.type('\x03')  # a long prompt can be interrupted as well
        self.assertEqual(terminal.exit_code(), 130)
        self.assertEqual(run('generate', '-f', tale, '-n', 1)[1], '')

    # ---- chat

    def test_chat_answers_piped_messages(self):
        out, err = run('chat', '-n', 20, '--seed', 1, '--system', 'Tell tales.',
                       stdin='Hello there\n/stats\n/reset\n\n/think on\nAnd now?\n/stats\n')
        self.assertEqual(err, '')
        self.assertEqual(len(re.findall(r'read \d+ tokens at', out)), 2, out)
        self.assertIn('The conversation is forgotten.', out)
        lengths = [int(n) for n in re.findall(r'history of (\d+) tokens', out)]
        self.assertGreater(min(lengths), 5)

    def test_chat_remembers_turns(self):
        out, _ = run('chat', '-n', 5, '--seed', 1, stdin='One\n/stats\nTwo\n/stats\n/reset\n/stats\n')
        first, second, last = [int(n) for n in re.findall(r'history of (\d+) tokens', out)]
        self.assertGreater(second, first)
        self.assertEqual(last, 0)

    def test_chat_reports_mistakes(self):
        self.check_error('chat', '--think', 'hard', code=2, says='hard')
        self.check_error('chat', '-m', 'no-such.pth', code=1, says='no-such.pth')
        out, _ = run('chat', stdin='/dance\n')
        self.assertIn('unknown command /dance', out)

    def test_chat_interrupt_ends_the_answer_only(self):
        # newlines would let a tale end before Ctrl-C comes; at the prompt Ctrl-C ends the program
        bans = [word for token in (0, *NEWLINES) for word in ('--ban', token)]
        terminal = Terminal('chat', '-n', 100000, *bans)
        terminal.read_until('> ')
        terminal.type('Tell me a tale\n')
        terminal.read_until(r'Tell me a tale\r\n.{20}')
        terminal.type('\x03')
        terminal.read_until(r'\n> $')
        terminal.type('/stats\n')
        terminal.read_until(r'history of \d+ tokens')
        terminal.type('/quit\n')
        self.assertEqual(terminal.exit_code(), 0)

    # ---- perplexity

    def test_perplexity_of_a_tale(self):
        tale = self.path('tale.txt', TALE)
        result = json.loads(run('perplexity', tale, '--json')[0])
        self.assertAlmostEqual(result['perplexity'], math.exp(result['nats_per_token']), delta=1e-6)
        # repeated text in the model's manner is foretold well, random words are not
        self.assertLess(result['bits_per_byte'], 1.3)
        noise = self.path('noise.txt', ' '.join(f'{i * 7919 % 10007:x}q' for i in range(300)))
        self.assertGreater(json.loads(run('perplexity', noise, '--json')[0])['bits_per_byte'], 3)
        out, err = run('perplexity', tale)
        self.assertRegex(out, r'nats per token +perplexity [\d.]+ +[\d.]+ bits per byte')
        self.assertIn(f"{result['nats_per_token']:.4f} nats", out)
        self.assertEqual(err, '')

    def test_perplexity_agrees_with_generate(self):
        # the log probability that generate reports for a token is what perplexity sums up
        pieces = json_lines(run('generate', 'A fox', '-n', 1, '--greedy', '--json')[0])[:-1]
        whole = 'A fox' + pieces[0]['text']
        short = json.loads(run('perplexity', self.path('a.txt', 'A fox'), '--json')[0])
        long = json.loads(run('perplexity', self.path('b.txt', whole), '--json')[0])
        if long['tokens'] == short['tokens'] + 1:  # the text encodes to the same tokens
            nats = long['nats_per_token'] * long['tokens'] - short['nats_per_token'] * short['tokens']
            self.assertAlmostEqual(nats, -pieces[0]['log_probability'], places=3)
        else:
            self.fail(f'{whole!r} encodes otherwise')

    def test_perplexity_reports_mistakes(self):
        self.check_error('perplexity', code=2, says='text file')
        self.check_error('perplexity', 'no-such.txt', code=1, says='no-such.txt')
        self.check_error('perplexity', self.path('empty', ''), code=1, says='too short')

    # ---- info and convert

    def test_info_describes_a_checkpoint(self):
        out, _ = run('info', STORY_MODEL)
        self.assertRegex(out, r'layers +8\n')
        self.assertRegex(out, r'stored as +Q8')
        columns = {line.index(line.split('  ')[-1].strip()) for line in out.splitlines() if line.startswith('  ')}
        self.assertEqual(len(columns), 1, 'values are not aligned:\n' + out)
        result = json.loads(run('info', STORY_MODEL, '--json')[0])
        self.assertEqual((result['layers'], result['width'], result['vocab_size']), (8, 256, 2048))
        self.assertTrue(result['has_tokenizer'])
        self.assertEqual(json.loads(run('info', '--json')[0])['fingerprint'], result['fingerprint'])

    def test_info_lists_devices(self):
        self.assertRegex(run('info', '--devices')[0], r'^cpu\n +processor ')
        devices = json.loads(run('info', '--devices', '--json')[0])['devices']
        self.assertEqual(devices[0]['name'], 'cpu')
        self.assertIn('scalar', devices[0]['kernels'])

    def test_info_reports_mistakes(self):
        self.check_error('info', 'no-such.pth', code=1, says='no-such.pth')

    def test_converted_model_tells_the_same(self):
        target = self.path('story-f32.gguf')
        out, _ = run('convert', STORY_MODEL, target, '--type', 'f32', '--name', 'tales')
        self.assertIn('story-f32.gguf', out)
        result = json.loads(run('info', target, '--json')[0])
        self.assertEqual(result['stored_types'], 'F32')
        expected, _ = run('generate', 'A fox', '-n', 40, '--greedy')
        self.assertEqual(run('generate', '-m', target, 'A fox', '-n', 40, '--greedy')[0], expected)

    def test_convert_reports_mistakes(self):
        target = self.path('target.gguf')
        self.check_error('convert', STORY_MODEL, code=2, says='target')
        self.check_error('convert', 'no-such.pth', target, code=1, says='no-such.pth')
        self.check_error('convert', STORY_MODEL, target, '--type', 'q9', code=2, says='q9')
        self.check_error('convert', STORY_MODEL, self.path('no') / 'such' / 'folder.gguf', code=1, says='')
        self.assertFalse(target.exists())

    # ---- all

    def test_help_reads_well(self):
        for name in NAMES:
            out, err = run(name, '--help')
            self.assertEqual(err, '')
            self.assertIn(f'  {name} ', out)
            self.assertIn('--help', out)
            self.assertLessEqual(max(map(len, out.splitlines())), 110, f'{name} --help has long lines')

    def test_embed_tells_a_story(self):
        out, err = run('embed', STORY_MODEL, 'Once upon a time')
        self.assertTrue(out.startswith('Once upon a time'), out)
        self.assertGreater(len(out.split()), 20, out)
        self.assertEqual(err, '')
        _, err = run('embed', 'no-such.gguf', 'x', code=1)
        self.assertRegex(err, r'^embed: WKV_NOT_FOUND: .*\n$')


if __name__ == '__main__':
    unittest.main()
