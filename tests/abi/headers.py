# SPDX-License-Identifier: Apache-2.0
"""Reads the declarations of include/wkv/*.h: what the other checks compare."""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
DECLARATION = re.compile(r'(?:/\*\*((?:[^*]|\*(?!/))*)\*/\s*)?^WKV_API\s+([^;]*?)(\w+)\s*\(([^;]*?)\)\s*;', re.S | re.M)


class Function:
    def __init__(self, header, match):
        self.header = header
        self.doc, self.result, self.name, parameters = match.groups()
        self.doc = self.doc or ''
        self.returns_void = self.result.split() == ['void']
        self.parameters = [] if parameters.strip() == 'void' else [
            re.search(r'(\w+)\s*$', p).group(1) for p in parameters.split(',')]


def functions():
    found = []
    for header in sorted((ROOT / 'include' / 'wkv').glob('*.h')):
        text = header.read_text()
        declared = [Function(header.name, match) for match in DECLARATION.finditer(text)]
        if len(declared) != len(re.findall(r'^WKV_API\b', text, re.M)):
            raise SystemExit(f'{header.name}: a WKV_API declaration is written in a way this check cannot read')
        found += declared
    return found


def finish(what, problems):
    """Prints every problem and ends the program: 0 when there is none."""
    for problem in problems:
        print(problem)
    print(f'{what}: {len(problems)} problems')
    raise SystemExit(1 if problems else 0)
