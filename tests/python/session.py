# SPDX-License-Identifier: Apache-2.0
"""A text that is begun in one process and goes on in another; the same program exists in every language.

    session.py begin MODEL SESSION     the first pieces; SESSION keeps the rest
    session.py go_on MODEL SESSION     the rest
"""
import sys

import wkv


def begun(model):
    """The text of tests/conformance, not yet started."""
    return model.generate('Once upon a time', temperature=0.8, seed=7, max_tokens=40)


def main(command, path, session):
    model = wkv.Model(path, device='cpu')
    if command == 'begin':
        generation = begun(model)
        text = ''.join(next(generation) for _ in range(20))
        wkv.Session(generation=generation).save(session)
    else:
        text = model.load_session(session).generation.text()
    sys.stdout.buffer.write(text.encode())


if __name__ == '__main__':
    if len(sys.argv) != 4 or sys.argv[1] not in ('begin', 'go_on'):
        sys.exit(__doc__)
    main(*sys.argv[1:])
