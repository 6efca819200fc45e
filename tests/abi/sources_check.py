# SPDX-License-Identifier: Apache-2.0
"""Habits of source files: licence line, and with `format` as argument, clang-format (exit 77 when it is missing)."""
import shutil
import subprocess
import sys

from headers import ROOT, finish

CODE = {'.c', '.cc', '.cpp', '.cu', '.cuh', '.h', '.hpp', '.java', '.cs'}
SCRIPTS = {'.py', '.sh', '.cmake', '.i'}
ROOMS = ('include', 'lib', 'kernels', 'bindings', 'examples', 'tests')


def sources(suffixes):
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob('*')):
            if path.is_file() and (path.suffix in suffixes) and not {'build', 'obj', 'bin'} & set(path.parts):
                yield path


problems = []
if sys.argv[1:] == ['format']:
    tool = shutil.which('clang-format-14') or shutil.which('clang-format') or 'true'
    version = subprocess.run([tool, '--version'], capture_output=True, text=True).stdout
    if ' 14.' not in version:  # versions do not agree with each other
        print('skipped: clang-format 14 is not installed')
        raise SystemExit(77)
    files = list(sources({'.c', '.cc', '.cpp', '.cu', '.cuh', '.h', '.hpp'}))
    for path in files:
        if subprocess.run([tool, '--dry-run', '-Werror', path], capture_output=True, cwd=ROOT).returncode:
            problems.append(f'{path.relative_to(ROOT)} is not formatted')
else:
    files = list(sources(CODE | SCRIPTS))
    for path in files:
        head = path.read_text().splitlines()[:2]
        if not any('SPDX-License-Identifier: Apache-2.0' in line for line in head):
            problems.append(f'{path.relative_to(ROOT)} does not begin with its licence')
finish(f'{len(files)} source files', problems)
