# SPDX-License-Identifier: Apache-2.0
"""Every public function is documented: each parameter, and none that is not there; result, threads, first version."""
import re

from headers import finish, functions

problems = []
declared = functions()
for f in declared:
    where = f'{f.header}: {f.name}'
    documented = re.findall(r'@param\s+(\w+)', f.doc)
    if not f.doc.strip(' *\n'):
        problems.append(f'{where} has no documentation')
        continue
    for name in f.parameters:
        if documented.count(name) != 1:
            problems.append(f'{where}: parameter {name} has {documented.count(name)} @param lines')
    for name in documented:
        if name not in f.parameters:
            problems.append(f'{where}: @param {name} is not a parameter')
    if [n for n in documented if n in f.parameters] != f.parameters:
        problems.append(f'{where}: @param lines are not in the order of the parameters')
    if ('@return' in f.doc) == f.returns_void:
        problems.append(f'{where}: ' + ('a void function has @return' if f.returns_void else 'no @return'))
    for tag in ('@threads', '@since'):
        if not re.search(tag + r'\s+\S', f.doc):
            problems.append(f'{where}: no {tag}')
if len(declared) < 30:
    problems.append(f'only {len(declared)} functions found')
finish(f'documentation of {len(declared)} functions', problems)
