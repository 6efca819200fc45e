# SPDX-License-Identifier: Apache-2.0
"""Write wkv/_header.py from the C headers: what they say of each function, and their info structs as named tuples.

    header.py INCLUDE_DIRECTORY OUTPUT
"""
import pathlib
import re
import sys
import textwrap

CLASSES = {
    'wkv_device_info': 'DeviceInfo', 'wkv_model_info': 'ModelInfo', 'wkv_memory_info': 'MemoryInfo',
    'wkv_memory_plan': 'MemoryPlan', 'wkv_initial_state_info': 'InitialStateInfo', 'wkv_cache_info': 'CacheInfo',
    'wkv_blob_info': 'BlobInfo', 'wkv_tokenizer_info': 'TokenizerInfo', 'wkv_prefix_store_info': 'PrefixStoreInfo',
}
FUNCTION = re.compile(r'/\*\*((?:(?!\*/).)*)\*/\s*WKV_API\s+[\w *]*?\b(wkv_\w+)\(', re.S)
STRUCT = re.compile(r'(?:/\*\*((?:(?!\*/).)*)\*/\s*)?typedef struct (\w+) \{(.*?)\n\} \2;', re.S)


def plain(comment):
    """A comment's text without its stars."""
    lines = [re.sub(r'^\s*\*? ?', '', line).rstrip() for line in (comment or '').split('\n')]
    return '\n'.join(lines).strip()


def documentation(comment):
    """What it does, what it returns and its thread rule: parameters are other ones in Python."""
    parts = re.split(r'^\s*@(\w+)\s*', plain(comment), flags=re.M)
    text = [textwrap.fill(' '.join(parts[0].split()), 100)]
    for tag, body in zip(parts[1::2], parts[2::2]):
        if tag in ('return', 'threads'):
            text.append(textwrap.fill(f"{'In C returns' if tag == 'return' else 'Threads'}: {' '.join(body.split())}", 100))
    return '\n\n'.join(text)


def fields(body):
    """(name, Python type) of each member but those of the ABI."""
    body = re.sub(r'/\*.*?\*/', '', body, flags=re.S)
    for declaration in filter(str.strip, body.split(';')):
        kind, names = declaration.strip().split(None, 1)
        for name in names.split(','):
            match = re.fullmatch(r'\s*(\w+)\s*(\[\w+\])?\s*', name)
            name, array = match.groups()
            if name in ('struct_size', 'reserved'):
                continue
            if kind == 'char':
                yield name, 'str'
            elif array:
                yield name, 'Tuple[int, ...]'
            else:
                yield name, 'bool' if name.startswith(('is_', 'has_', 'may_be_')) else 'int'


def main(include, output):
    docs, classes = {}, []
    for header in sorted(pathlib.Path(include).glob('wkv/*.h')):
        text = header.read_text()
        for comment, name in FUNCTION.findall(text):
            docs[name] = documentation(comment)
        for comment, name, body in STRUCT.findall(text):
            if name in CLASSES:
                lines = [f'class {CLASSES[name]}(NamedTuple):',
                         f'    """{" ".join(plain(comment).split()) or "See " + name + " in C."}"""', '']
                lines += [f'    {field}: {kind}' for field, kind in fields(body)]
                classes.append('\n'.join(lines))
    missing = [name for name in CLASSES.values() if not any(f'class {name}(' in text for text in classes)]
    if missing or len(docs) < 50:
        raise SystemExit(f'{include}: {len(docs)} functions found, structs missing: {missing}')
    entries = ''.join(f'    {name!r}: {text!r},\n' for name, text in sorted(docs.items()))
    pathlib.Path(output).write_text(
        '# SPDX-License-Identifier: Apache-2.0\n"""Made from the C headers."""\nfrom typing import Dict, NamedTuple, Tuple\n\n'
        + f'DOCS: Dict[str, str] = {{\n{entries}}}\n\n\n' + '\n\n\n'.join(classes) + '\n')


if __name__ == '__main__':
    main(*sys.argv[1:])
