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
import struct
import subprocess
import tempfile
import time
import unittest
import xml.etree.ElementTree
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = pathlib.Path(os.environ['WKV_EXAMPLES_DIR'])
STORY_MODEL = ROOT / 'examples/models/tales-8m.gguf'
NEWLINES = (11, 291, 1175)  # tokens of the story model that hold one
# what could end a text of the story model before its tokens are used up
NO_END = [word for token in (0, *NEWLINES) for word in ('--ban', token)]
NAMES = ('generate', 'chat', 'branch', 'prefix', 'state', 'perplexity', 'info', 'convert')
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


def read_png(path):
    """Checks every checksum of a PNG as the examples write them, and gives its rows of (red, green, blue)."""
    data, at, chunks = path.read_bytes(), 8, {}
    assert data[:8] == b'\x89PNG\r\n\x1a\n'
    while at < len(data):
        size, kind = struct.unpack('>I4s', data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        assert struct.unpack('>I', data[at + 8 + size:at + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind], at = body, at + 12 + size
    width, height, *rest = struct.unpack('>IIBBBBB', chunks[b'IHDR'])
    assert rest == [8, 2, 0, 0, 0], rest
    lines, above, rows = zlib.decompress(chunks[b'IDAT']), bytes(3 * width), []
    assert len(lines) == height * (1 + 3 * width)
    for y in range(height):
        line = lines[y * (1 + 3 * width):(y + 1) * (1 + 3 * width)]
        assert line[0] == 2
        above = bytes((a + b) & 255 for a, b in zip(line[1:], above))
        rows.append([tuple(above[x:x + 3]) for x in range(0, 3 * width, 3)])
    return rows


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
        # one long line that does not end before Ctrl-C comes
        terminal = Terminal('chat', '-n', 100000, *NO_END)
        terminal.read_until('> ')
        terminal.type('Tell me a tale\n')
        terminal.read_until(r'Tell me a tale\r\n.{20}')
        terminal.type('\x03')
        terminal.read_until(r'\n> $')
        terminal.type('/stats\n')
        terminal.read_until(r'history of \d+ tokens')
        terminal.type('/quit\n')
        self.assertEqual(terminal.exit_code(), 0)

    def chat_session(self, *messages, session, options=('-n', 16, '--seed', 5, '--frequency', 0.3, *NO_END)):
        return run('chat', *options, '--session', session, stdin=''.join(m + '\n' for m in messages))

    def test_chat_session_goes_on_as_if_never_closed(self):
        # with sampling and penalties on: cache, random generator and counts have all come along
        messages = ['Tell me of a king', 'And then?', 'Who came?', 'How did it end?']
        whole, err = self.chat_session(*messages, session=self.path('whole.wkv'))
        self.assertEqual(err, '')
        parted = self.path('parted.wkv')
        outputs = [self.chat_session(message, session=parted) for message in messages]
        self.assertEqual(''.join(out for out, _ in outputs), whole)
        self.assertEqual(outputs[0][1], '')
        for _, err in outputs[1:]:
            self.assertRegex(err, r'^\S+parted\.wkv goes on: \d+ tokens remembered\n$')
        self.assertEqual(self.path('parted.wkv').read_bytes(), self.path('whole.wkv').read_bytes())

    def test_chat_session_keeps_thinking_out_of_the_history(self):
        slash = json.loads(run('state', 'show', self.make_state('slash.wkv', '/'), '--json')[0])['last_tokens'][-1]
        options = ('-n', 12, '--seed', 5, '--think', 'on', '--ban', slash, *NO_END)
        messages = ['Tell me of a king', 'And then?', 'Who came?']
        whole, _ = self.chat_session(*messages, session=self.path('whole.wkv'), options=options)
        parts = [self.chat_session(m, session=self.path('parted.wkv'), options=options)[0] for m in messages]
        self.assertEqual(''.join(parts), whole)
        # without a slash the thinking has no end: there is no answer, and the history says just that
        state = json.loads(run('state', 'show', self.path('whole.wkv'), '--json')[0])
        self.assertTrue(state['last_text'].endswith('came?\n\nAssistant:\n\n'), state['last_text'])

    def test_chat_reads_an_answer_once(self):
        # the history reads the message and the end of the answer, which was written into it
        pieces = json_lines(run('generate', 'Once upon a time', '-n', 20, '--greedy', '--json')[0])[:-1]
        word = next(p['token'] for p in pieces if re.fullmatch(r' \w+', p['text']))  # all that is answered
        out, _ = run('chat', '-n', 60, '--bias', f'{word}=1000', stdin='One\n/stats\n')
        read = int(re.search(r'read (\d+) tokens', out).group(1))
        history = int(re.search(r'history of (\d+) tokens', out).group(1))
        self.assertLess(read, 20)
        self.assertGreater(history, 60)

    def test_chat_session_remembers_reset_and_system(self):
        session = self.path('s.wkv')
        run('chat', '--session', session, '--system', 'Tell tales.', stdin='')
        empty = json.loads(run('state', 'show', session, '--json')[0])
        self.assertEqual(empty['last_text'], 'System: Tell tales.\n\n')
        self.chat_session('A long message about nothing', session=session)
        out, err = run('chat', '--session', session, '--system', 'Be brief.', stdin='/reset\n')
        self.assertIn('goes on', err)
        self.assertEqual(json.loads(run('state', 'show', session, '--json')[0])['last_text'],
                         'System: Be brief.\n\n')

    def test_chat_refuses_sessions_that_do_not_fit(self):
        session = self.path('s.wkv')
        self.chat_session('One', session=session)
        good = session.read_bytes()
        other = self.path('other.gguf')
        run('convert', STORY_MODEL, other, '--type', 'f16')
        self.check_error('chat', '-m', other, '--session', session, code=1, says='fingerprint')
        self.assertEqual(session.read_bytes(), good)
        middle = len(good) // 2
        for bad in (b'', b'rubbish', good[:-1], good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1:]):
            session.write_bytes(bad)
            self.check_error('chat', '--session', session, code=1, says='')
            self.assertEqual(session.read_bytes(), bad)
        self.check_error('chat', '--session', self.path('no') / 'such.wkv', code=1, says='such.wkv')

    def test_chat_session_survives_ctrl_c_at_the_prompt(self):
        session = self.path('s.wkv')
        terminal = Terminal('chat', '-n', 8, '--seed', 5, *NO_END, '--session', session)
        terminal.read_until('> $')
        terminal.type('Tell me a tale\n')
        terminal.read_until(r'tale\r\n(?s:.)+\n> $')
        terminal.type('\x03')
        self.assertEqual(terminal.exit_code(), -signal.SIGINT)
        expected = self.path('expected.wkv')
        self.chat_session('Tell me a tale', session=expected, options=('-n', 8, '--seed', 5, *NO_END))
        self.assertEqual(session.read_bytes(), expected.read_bytes())

    def test_chat_session_keeps_an_interrupted_answer(self):
        session = self.path('s.wkv')
        terminal = Terminal('chat', '-n', 100000, *NO_END, '--session', session)
        terminal.read_until('> $')
        terminal.type('Tell me a tale\n')
        terminal.read_until(r'Tell me a tale\r\n.{20}')
        terminal.type('\x03')
        terminal.read_until(r'\n> $')
        terminal.type('/quit\n')
        self.assertEqual(terminal.exit_code(), 0)
        state = json.loads(run('state', 'show', session, '--json')[0])
        self.assertGreater(state['position'], 15)
        self.assertTrue(state['last_text'].endswith('\n\n'), state['last_text'])

    def test_chat_session_is_whole_after_kill(self):
        session, position = self.path('s.wkv'), 0
        for round_number in range(8):
            program = subprocess.Popen([PROGRAMS / 'chat', '-n', '2', '--seed', '5', *map(str, NO_END), '--session',
                                        session], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL)
            program.stdin.write(b'Again\n' * 10000)  # more than it gets to
            program.stdin.flush()
            for _ in range(3):  # what was answered before is saved
                program.stdout.readline()
            time.sleep(0.004 * round_number)  # another moment each time; any will do
            program.kill()
            program.communicate()
            self.assertEqual(program.returncode, -signal.SIGKILL)
            state = json.loads(run('state', 'show', session, '--json')[0])
            self.assertTrue(state['is_finite'])
            self.assertGreater(state['position'], position)
            position = state['position']
            self.assertIn('goes on', run('chat', '--session', session, stdin='/quit\n')[1])

    # ---- branch

    def branches(self, *arguments):
        return json.loads(run('branch', *arguments, '--seed', 4, '--json', *NO_END)[0])

    def test_branch_grows_a_tree_of_forks(self):
        result = self.branches('Once upon a time', '--branches', 3, '--depth', 2, '--tokens', 5)
        tree, costs = result['tree'], result['costs']
        self.assertEqual((tree['text'], result['seed']), ('Once upon a time', 4))
        nodes = [tree, *tree['branches']]
        for node in nodes:
            self.assertEqual(len(node['branches']), 3)
            self.assertEqual(len({branch['tokens'][0] for branch in node['branches']}), 3)
            for branch in node['branches']:
                self.assertEqual(len(branch['tokens']), 5)
                self.assertGreater(branch['probability'], 0)
            self.assertLessEqual(sum(branch['probability'] for branch in node['branches']), 1.0001)
        self.assertEqual((costs['forks'], costs['fork_bytes']), (12, 0))
        self.assertEqual(costs['full_copy_bytes'], 12 * costs['state_bytes'])
        self.assertEqual(costs['caches_bytes'], 9 * costs['state_bytes'])
        self.assertLess(costs['computed_tokens'], costs['separate_tokens'])
        self.assertEqual(self.branches('Once upon a time', '--branches', 3, '--depth', 2, '--tokens', 5)['tree'], tree)

    def test_branch_without_branches_is_a_text(self):
        options = ('--greedy', '--reproducible')
        tree = self.branches('A fox', '--branches', 1, '--depth', 3, '--tokens', 4, *options)['tree']
        tokens = []
        while 'branches' in tree:
            tree = tree['branches'][0]
            tokens += tree['tokens']
        pieces = json_lines(run('generate', 'A fox', '-n', 12, '--json', *options, *NO_END)[0])[:-1]
        self.assertEqual(tokens, [piece['token'] for piece in pieces if piece['token'] >= 0])

    def test_branch_draws_in_the_terminal(self):
        options = ('A fox', '-b', 2, '-d', 2, '-n', 4, '--seed', 4, *NO_END)
        out, err = run('branch', *options)
        self.assertEqual(err, '')
        self.assertEqual([out.count(mark) for mark in ('├─', '└─')], [3, 3], out)
        self.assertRegex(out, r'memory +\+0 B when they were made; full copies: \+')
        plain, _ = run('branch', *options, '--ascii')
        self.assertTrue(plain.isascii())
        self.assertEqual([plain.count(mark) for mark in ('|-', '`-')], [3, 3], plain)

    def test_branch_draws_a_picture(self):
        picture = self.path('tree.svg')
        tree = json.loads(run('branch', 'A <fox> & "co"', '-b', 2, '-d', 2, '-n', 9, '--seed', 4, '--json', '--svg',
                              picture, *NO_END)[0])['tree']
        shown = ' '.join(xml.etree.ElementTree.parse(picture).getroot().itertext())
        for node in (tree, *tree['branches'], *tree['branches'][1]['branches']):
            for word in node['text'].split():
                self.assertIn(word, shown)

    def test_branch_reports_mistakes(self):
        self.check_error('branch', '--branches', 0, code=2, says='branches')
        self.check_error('branch', '--branches', 10, '--depth', 3, code=2, says='1000')
        self.check_error('branch', '--depth', 2000000000, code=2, says='1000')
        self.check_error('branch', '-m', 'no-such.pth', code=1, says='no-such.pth')
        self.check_error('branch', 'one', 'two', code=2, says='two')
        _, err = run('branch', '-n', 1, '--svg', self.path('no') / 'such.svg', code=1)
        self.assertRegex(err, r'^branch: cannot write \S+such\.svg\n$')

    # ---- prefix

    def test_prefix_reads_the_text_once(self):
        result = json.loads(run('prefix', '--seed', 1, '-n', 4, '--json')[0])
        text = result['text_tokens']
        self.assertGreater(text, 1500)
        self.assertEqual((result['text']['reused'], result['text']['computed']), (0, text))
        self.assertEqual(len(result['questions']), 10)
        for question in result['questions']:
            self.assertEqual(question['reused'], text)
            self.assertLess(question['computed'], 60)
        self.assertEqual(result['store']['reused_tokens'], 10 * text)
        saved = result['without_store']['tokens'] - result['with_store']['tokens']
        self.assertEqual(saved, 9 * text)

    def test_prefix_finds_the_text_again_at_the_next_start(self):
        questions = self.path('questions.txt', 'Who was the king?\n\nWhat did the youngest have?\n')
        store = self.path('store')
        options = ('--document', self.path('tale.txt', TALE), '--questions', questions, '--directory', store,
                   '--seed', 1, '-n', 12, '--json')
        answers = lambda result: [question['answer'] for question in result['questions']]
        first = json.loads(run('prefix', *options)[0])
        self.assertEqual([question['question'] for question in first['questions']],
                         ['Who was the king?', 'What did the youngest have?'])
        self.assertEqual((first['text']['reused'], first['store']['stored_entries']), (0, 1))
        second = json.loads(run('prefix', *options)[0])
        self.assertEqual((second['text']['reused'], second['text']['computed']), (second['text_tokens'], 0))
        self.assertEqual(second['store']['stored_hits'], 1)
        self.assertEqual(answers(second), answers(first))
        # a damaged entry is read anew
        entry, = store.iterdir()
        entry.write_bytes(entry.read_bytes()[:-100] + bytes(100))
        third = json.loads(run('prefix', *options)[0])
        self.assertEqual(third['text']['reused'], 0)
        self.assertEqual(answers(third), answers(first))

    def test_prefix_prints_what_was_saved(self):
        options = ('--document', self.path('tale.txt', TALE), '--seed', 1, '-n', 3)
        out, err = run('prefix', *options)
        self.assertEqual(err, '')
        self.assertRegex(out, r'The store saved [\d,]+ tokens \(\d+ %\) and -?[\d.]+ s \(-?\d+ %\)\.')
        self.assertRegex(out, r'the text +0 +[\d,]+ +[\d.]+ ms  ')
        self.assertTrue(run('prefix', *options, '--ascii')[0].isascii())

    def test_prefix_reports_mistakes(self):
        self.check_error('prefix', '--document', 'no-such.txt', code=1, says='no-such.txt')
        self.check_error('prefix', '--document', self.path('empty', '\n\n'), code=2, says='no text')
        self.check_error('prefix', '--questions', self.path('blank', '\n \n'), code=2, says='no question')
        self.check_error('prefix', '--tokens', 0, code=2, says='tokens')
        self.check_error('prefix', 'what', code=2, says='what')

    # ---- state

    def make_state(self, name, text, *options):
        path = self.path(name)
        out, err = run('state', 'make', text, path, *options)
        self.assertRegex(out, r'tokens read, [\d.]+ .?B\n$')
        self.assertEqual(err, '')
        return path

    def test_state_shows_what_is_in_a_file(self):
        path = self.make_state('a.wkv', 'The wolf and the fox')
        result = json.loads(run('state', 'show', path, '--json')[0])
        self.assertEqual((result['layers'], result['width'], result['state_type']), (8, 256, 'f32'))
        self.assertEqual(result['position'], len(result['last_tokens']))
        self.assertEqual(result['last_text'], 'The wolf and the fox')
        self.assertEqual(result['bytes'], path.stat().st_size)
        self.assertFalse(result['has_sampler'])
        self.assertEqual(len(result['norms']), 8)
        for layer in result['norms']:
            self.assertAlmostEqual(layer['wkv'], math.hypot(*layer['heads']), places=6)
        out, _ = run('state', 'show', path)
        self.assertRegex(out, r'position +\d+ tokens read')
        self.assertEqual(len(re.findall(r'(?m)^ +[0-7] +[\d.]+ \S', out)), 8, out)
        file = self.path('text.txt', 'The wolf and the fox')
        run('state', 'make', '-f', file, self.path('b.wkv'))
        self.assertEqual(self.path('b.wkv').read_bytes(), path.read_bytes())

    def test_state_shows_the_header_without_the_model(self):
        other = self.path('other.gguf')
        run('convert', STORY_MODEL, other, '--type', 'f16')
        path = self.make_state('a.wkv', 'The wolf', '-m', other)
        out, _ = run('state', 'show', path)
        self.assertIn('Name its model with --model', out)
        self.assertNotIn('Norms', out)
        self.assertIn('Norms', run('state', 'show', path, '-m', other)[0])
        self.check_error('state', 'compare', path, path, code=1, says='fingerprint')

    def test_state_compares(self):
        a, b = self.make_state('a.wkv', 'The wolf and the fox'), self.make_state('b.wkv', 'The wolf and the hen')
        half = self.make_state('half.wkv', 'The wolf and the fox', '--type', 'f16')
        same = json.loads(run('state', 'compare', a, a, '--json')[0])
        self.assertTrue(same['is_same'])
        self.assertEqual(same['distance'], 0)
        close = json.loads(run('state', 'compare', a, half, '--json')[0])
        self.assertFalse(close['is_same'])
        self.assertLess(close['distance'], 2 ** -11)
        far = json.loads(run('state', 'compare', a, b, '--json')[0])
        self.assertGreater(far['distance'], 0.01)
        self.assertEqual(len(far['layers']), 8)
        self.assertIn('the same to the bit', run('state', 'compare', a, a)[0])

    def test_state_converts_types(self):
        session = self.path('s.wkv')
        self.chat_session('One', session=session)
        half, whole = self.path('half.wkv'), self.path('whole.wkv')
        self.assertIn('F16', run('state', 'convert', session, half, '--type', 'f16')[0])
        result = json.loads(run('state', 'show', half, '--json')[0])
        self.assertEqual((result['state_type'], result['has_sampler']), ('f16', True))
        self.assertLess(half.stat().st_size, 0.6 * session.stat().st_size)
        run('state', 'convert', session, whole)
        self.assertEqual(whole.read_bytes(), session.read_bytes())
        self.assertIn('goes on', run('chat', '--session', half, stdin='/quit\n')[1])

    def test_state_converts_layouts(self):
        path, raw = self.make_state('a.wkv', 'The wolf and the fox'), {}
        for layout in ('official', 'fla', 'rwkv.cpp', 'llama.cpp'):
            target = self.path(layout)
            run('state', 'convert', path, target, '--layout', layout)
            raw[layout] = struct.unpack(f'<{target.stat().st_size // 4}f', target.read_bytes())
        c, n, layers = 256, 64, 8
        layer = c + c * n + c
        self.assertEqual({len(values) for values in raw.values()}, {layers * layer})
        official = raw['official']
        for i in (0, 3, 7):
            base = i * layer
            att, wkv = official[base:base + c], official[base + c:base + c + c * n]
            ffn = official[base + c + c * n:base + layer]
            self.assertEqual(raw['rwkv.cpp'][base:base + layer], ffn + att + wkv)
            turned = tuple(wkv[h * n * n + v * n + k] for h in range(c // n) for k in range(n) for v in range(n))
            self.assertEqual(raw['fla'][base:base + layer], turned + att + ffn)
            self.assertEqual(raw['llama.cpp'][i * 2 * c:(i + 1) * 2 * c], att + ffn)
            self.assertEqual(raw['llama.cpp'][layers * 2 * c + i * c * n:][:c * n], wkv)

    def test_state_draws_maps(self):
        path, svg, png = self.make_state('a.wkv', 'The wolf and the fox'), self.path('a.svg'), self.path('a.png')
        out, _ = run('state', 'map', path, '--svg', svg, '--png', png)
        self.assertEqual(len(out.splitlines()), 2)
        root = xml.etree.ElementTree.parse(svg).getroot()
        texts = list(root.itertext())
        norms = json.loads(run('state', 'show', path, '--json')[0])['norms']
        highest = max(max(layer['heads']) for layer in norms)
        for wanted in ('State in a.wkv', 'layer', 'head', f'{highest:.1f}' if highest >= 10 else f'{highest:.2f}'):
            self.assertIn(wanted, texts)
        cells = [(e.get('x'), e.get('y')) for e in root.iter('{http://www.w3.org/2000/svg}rect')]
        self.assertGreater(len(cells), 8 * (4 + 2))
        rows = read_png(png)
        self.assertEqual((len(rows[0]), len(rows)), (round(2 * float(root.get('width'))),
                                                     round(2 * float(root.get('height')))))
        colours = {colour for row in rows for colour in row}
        for wanted in ((255, 255, 255), (68, 1, 84), (253, 231, 37)):  # paper, lowest, highest
            self.assertIn(wanted, colours)

    def test_state_reports_mistakes(self):
        path = self.make_state('a.wkv', 'The wolf')
        self.check_error('state', code=2, says='command')
        self.check_error('state', 'dance', path, code=2, says='dance')
        self.check_error('state', 'show', code=2, says='FILE')
        self.check_error('state', 'show', path, path, code=2, says='FILE')
        self.check_error('state', 'show', 'no-such.wkv', code=1, says='no-such.wkv')
        self.check_error('state', 'show', self.path('x', 'rubbish'), code=1, says='')
        self.check_error('state', 'map', path, code=2, says='--svg')
        self.check_error('state', 'convert', path, self.path('y'), '--type', 'q8', code=2, says='q8')
        self.check_error('state', 'convert', path, self.path('y'), '--layout', 'cubist', code=2, says='cubist')
        self.check_error('state', 'convert', path, self.path('no') / 'y', code=1, says='')
        self.check_error('state', 'make', 'x', self.path('no') / 'y', code=1, says='')
        self.assertFalse(self.path('y').exists())

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
