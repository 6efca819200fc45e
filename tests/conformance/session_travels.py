# SPDX-License-Identifier: Apache-2.0
"""A text that one program begins and another ends is the text of one uninterrupted run.

    session_travels.py MODEL -- WHOLE_COMMAND... -- BEGIN_COMMAND... -- GO_ON_COMMAND...

The words `whole MODEL`, `begin MODEL SESSION` and `go_on MODEL SESSION` are put behind the three commands.
"""
import itertools
import pathlib
import subprocess
import sys
import tempfile


def text_of(command, *arguments):
    done = subprocess.run([*command, *arguments], capture_output=True, timeout=120)
    if done.returncode:
        sys.exit(f'{command} {arguments}: exit code {done.returncode}\n{done.stderr.decode(errors="replace")}')
    return done.stdout.decode()


def main(arguments):
    parts = [list(part) for is_mark, part in itertools.groupby(arguments, '--'.__eq__) if not is_mark]
    (model,), whole, begin, go_on = parts
    expected = text_of(whole, 'whole', model)
    with tempfile.TemporaryDirectory() as folder:
        session = pathlib.Path(folder) / 'session.wkv'
        first = text_of(begin, 'begin', model, str(session))
        rest = text_of(go_on, 'go_on', model, str(session))
    if not (first.strip() and rest.strip() and first + rest == expected):
        sys.exit(f'{first!r} and {rest!r} are not {expected!r}')


if __name__ == '__main__':
    main(sys.argv[1:])
