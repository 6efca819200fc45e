# SPDX-License-Identifier: Apache-2.0
"""python -m wkv, and the examples, as a user runs them."""
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import support
import wkv

EXAMPLES = support.ROOT / 'examples/python'


def run(*arguments, stdin='', code=0, cwd=None):
    done = subprocess.run([sys.executable, '-B', *map(str, arguments)], input=stdin, capture_output=True, text=True,
                          encoding='utf-8', cwd=cwd, timeout=120)
    assert done.returncode == code, f'{arguments}: exit code {done.returncode}\n{done.stderr}'
    return done.stdout, done.stderr


class Command(unittest.TestCase):
    def test_generate(self):
        arguments = ('-m', 'wkv', 'generate', support.STORY_MODEL, 'Once upon a time', '--tokens', 20, '--seed', 3)
        text, _ = run(*arguments)
        self.assertTrue(text.startswith('Once upon a time '), text)
        self.assertEqual(run(*arguments)[0], text)

    def test_chat_keeps_its_session(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / 'chat.wkv'
            arguments = ('-m', 'wkv', 'chat', support.STORY_MODEL, '--session', path, '--tokens', 10)
            run(*arguments, stdin='Hello\nAgain\n')
            first = int(re.search(r'position +(\d+)', run('-m', 'wkv', 'info', path)[0]).group(1))
            run(*arguments, stdin='And on\n')
            self.assertGreater(int(re.search(r'position +(\d+)', run('-m', 'wkv', 'info', path)[0]).group(1)), first)

    def test_info(self):
        self.assertRegex(run('-m', 'wkv', 'info', support.STORY_MODEL)[0], r'layers +8\n')
        self.assertIn('cpu: ', run('-m', 'wkv', 'info')[0])

    def test_bench(self):
        self.assertRegex(run('-m', 'wkv', 'bench', support.STORY_MODEL, '--tokens', 32)[0], r'decode: [\d.]+ tokens/s')

    def test_errors_are_one_line(self):
        out, err = run('-m', 'wkv', 'generate', '/no/such/file', 'x', code=1)
        self.assertRegex(err, r'^wkv: /no/such/file: .*\n$')
        run('-m', 'wkv', 'nonsense', code=2)

    def test_ctrl_c(self):
        process = subprocess.Popen([sys.executable, '-B', '-m', 'wkv', 'generate', str(support.STORY_MODEL), 'Once', '--tokens',
                                    '1000000', '--temperature', '1'], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.read(5)
        time.sleep(0.1)
        if process.poll() is not None:
            self.skipTest('the text was over at once')
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        self.assertIn(process.returncode, (0, 130))  # 0: the story had ended just before
        self.assertEqual(err, b'')


class Examples(unittest.TestCase):
    """In an empty folder, as from a fresh shell."""

    def run_example(self, name, *arguments, stdin=''):
        with tempfile.TemporaryDirectory() as folder:
            return run(EXAMPLES / name, *arguments, stdin=stdin, cwd=folder)[0]

    def test_every_example_is_tested(self):
        names = {path.stem for path in EXAMPLES.glob('*.py')}
        tested = {name[5:] for name in dir(self) if name.startswith('test_')} - {'every_example_is_tested'}
        self.assertEqual(names, tested | {'hf_generate', 'ray_batch'})  # other files run these

    def test_generate(self):
        text = self.run_example('generate.py', 'There was a king')
        self.assertGreater(len(text), len('There was a king') + 20)

    def test_chat(self):
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(2):
                out, _ = run(EXAMPLES / 'chat.py', stdin='Hello\nTell me more\n', cwd=folder)
                self.assertGreater(len(out), 10)
            self.assertTrue((pathlib.Path(folder) / 'chat.wkv').exists())

    def test_branch(self):
        lines = self.run_example('branch.py').strip().split('\n')
        self.assertEqual(len(set(lines)), 4, lines)

    def test_batch(self):
        lines = self.run_example('batch.py').strip().split('\n')
        self.assertEqual(len(lines), 3, lines)
        self.assertTrue(all(len(line) > 40 for line in lines), lines)

    def test_embed(self):
        self.assertTrue(self.run_example('embed.py', 'Once upon a time').startswith('Once upon a time '))


PROGRAMS = pathlib.Path(os.environ.get('WKV_EXAMPLES_DIR', '/nonexistent'))


class Exchange(unittest.TestCase):
    """Files that go from C to Python and back, by the example programs."""

    def program(self, name, *arguments, stdin=''):
        if not (PROGRAMS / name).exists():
            self.skipTest(f'the example program {name} is not built (WKV_EXAMPLES_DIR)')
        done = subprocess.run([PROGRAMS / name, *map(str, arguments)], input=stdin.encode(), capture_output=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.decode()

    def test_states(self):
        model = support.story_model()
        with tempfile.TemporaryDirectory() as folder:
            theirs, ours = pathlib.Path(folder) / 'theirs.wkv', pathlib.Path(folder) / 'ours.wkv'
            self.program('state', 'make', 'Once upon a time', theirs)
            cache, own = model.load_cache(theirs), model.cache()
            own.step(model.tokenizer.encode('Once upon a time'))
            self.assertEqual(cache.last_tokens, own.last_tokens)
            own.save(ours)
            self.assertIn('5 tokens read', self.program('state', 'show', ours))
            difference = max(abs(a - b) for a, b in zip(support.numbers(cache.step(5)), support.numbers(own.step(5))))
            self.assertLess(difference, 1e-3)  # their number of threads may be another

    def test_sessions(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / 'chat.wkv'
            self.program('chat', '--session', path, '-n', 10, stdin='Hello\n')
            session = support.story_model().load_session(path)
            self.assertIsNotNone(session.sampler)
            before = session.cache.position
            text = support.story_model().generate('\n\nUser: More\n\nAssistant:', cache=session.cache,
                                                  sampler=session.sampler, max_tokens=5).text()
            self.assertTrue(text)
            session.save(path)
            self.program('chat', '--session', path, '-n', 10, stdin='And?\n')
            self.assertGreater(wkv.read_header(path).position, before)


if __name__ == '__main__':
    support.main()
