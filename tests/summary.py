# SPDX-License-Identifier: Apache-2.0
"""Adds up CTest's results.  usage: summary.py PHASE=RESULTS_XML...
Lists failures and, grouped, skips; shows what each language's binding passed of the list they share (tests/conformance);
the last line is `N passed, N failed, N skipped`. A phase without results, because it did not build or ran nothing, is a
failure."""
import collections
import pathlib
import re
import sys
import xml.etree.ElementTree as xml

LANGUAGES = ('python', 'java', 'csharp')

passed = failed = 0
skips = collections.Counter()
conformance = collections.defaultdict(dict)  # case -> language -> outcome


def note(name, outcome):
    language, _, case = name.partition('/conformance/')
    if language in LANGUAGES and case:
        order = ('FAILED', 'passed', 'skipped')  # of several phases
        conformance[case][language] = min(outcome, conformance[case].get(language, outcome), key=order.index)


for argument in sys.argv[1:]:
    phase, path = argument.split('=', 1)
    cases = list(xml.parse(path).getroot().iter('testcase')) if pathlib.Path(path).is_file() else []
    if not cases:
        print(f'FAILED   {phase}: no test ran')
        failed += 1
    for case in cases:
        output = case.findtext('system-out') or ''
        name = case.get('name').split('  #')[0]  # CMake adds the parameters of a parameterised test
        outcome = 'FAILED'
        if case.find('failure') is not None or case.get('status') == 'fail':
            failed += 1
            print(f"FAILED   {phase}: {name}")
        elif case.get('status') == 'run':
            outcome = 'passed'
            passed += 1
        elif case.find('skipped') is not None and re.search(r'skipped|SKIPPED', output):
            outcome = 'skipped'
            # GoogleTest prints the reason after the line "file:line: Skipped"
            reason = re.search(r': Skipped\n+(.+)|skipped: (.+)', output)
            where = name.split('/')[0]
            skips[phase, where, next(filter(None, reason.groups())).strip() if reason else 'no reason given'] += 1
        else:
            failed += 1
            print(f"FAILED   {phase}: {case.get('name')} did not run")
        note(name, outcome)
for (phase, where, reason), count in sorted(skips.items()):
    print(f'skipped  {phase}: {count} of {where}: {reason}')
if conformance:
    print(f"{'conformance':22}" + ''.join(f'{language:9}' for language in LANGUAGES).rstrip())
    for case, outcomes in conformance.items():
        print(f'  {case:20}' + ''.join(f"{outcomes.get(language, '-'):9}" for language in LANGUAGES).rstrip())
print(f'{passed} passed, {failed} failed, {sum(skips.values())} skipped')
raise SystemExit(1 if failed else 0)
