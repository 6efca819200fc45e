# SPDX-License-Identifier: Apache-2.0
"""Declared functions, lib/api/exports.txt and the symbols of the built library are the same set; the library's own
name and what it needs are as promised.  usage: exports_check.py LIBRARY"""
import re
import subprocess
import sys

from headers import ROOT, finish, functions

# what any C++ program on the system has; sanitizer runtimes appear in instrumented builds
NEEDED = r'(libstdc\+\+|libm|libgcc_s|libc|libpthread|ld-linux[-\w]*|libasan|libubsan|libtsan)\.so\.\d+'


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


library = sys.argv[1]
lines = [line for line in (ROOT / 'lib/api/exports.txt').read_text().splitlines() if line and line[0] != '#']
listed, declared = set(lines), {f.name for f in functions()}
symbols = [line.split()[-1] for line in output('nm', '-D', '--defined-only', library).splitlines()]
built = {s.split('@')[0] for s in symbols if not re.fullmatch(r'WKV_\d+(@.*)?', s)}

problems = [] if lines == sorted(listed) else ['exports.txt is not sorted, or names something twice']
for what, names in (('is declared but not in exports.txt', declared - listed),
                    ('is in exports.txt but not declared', listed - declared),
                    ('is in exports.txt but not built', listed - built),
                    ('is built but not in exports.txt', built - listed)):
    problems += [f'{name} {what}' for name in sorted(names)]
dynamic = output('readelf', '-d', library)
soname = re.search(r'SONAME.*\[(.*)\]', dynamic)
if not soname or soname.group(1) != 'libwkv.so.0':
    problems.append(f'the soname is {soname and soname.group(1)}, not libwkv.so.0')
for name in re.findall(r'NEEDED.*\[(.*)\]', dynamic):
    if not re.fullmatch(NEEDED, name):
        problems.append(f'the library needs {name}')
finish(f'{len(built)} exported symbols', problems)
