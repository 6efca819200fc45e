# SPDX-License-Identifier: Apache-2.0
"""Write the Java sources that are compiled: those by hand, in which {@c wkv_function} becomes what the C header says of that
function (in one line, so that line numbers stay), and a record for each info struct.

    sources.py INCLUDE_DIRECTORY SOURCE_DIRECTORY OUTPUT_DIRECTORY
"""
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / 'python/tools'))
from header import CLASSES, FUNCTION, STRUCT, plain  # noqa: E402

FIELD = re.compile(r'(\w+)\s+(\w[\w\s,\[\]]*);[ \t]*(?:\n?[ \t]*/\*(.*?)\*/)?', re.S)
TYPES = {'int32_t': 'int', 'uint32_t': 'int', 'int64_t': 'long', 'uint64_t': 'long', 'wkv_type': 'NumberType', 'char': 'String'}


def escaped(text):
    """Text of a C comment as HTML of a Java one, in one line."""
    text = ' '.join(text.split()).replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;').replace('@', '&#64;')
    return text.replace('{', '&#123;').replace('}', '&#125;')


def documentation(comment):
    """What a function does, what it returns in C, and its thread rule: parameters are other ones in Java."""
    parts = re.split(r'^\s*@(\w+)\s*', plain(comment), flags=re.M)
    text = escaped(parts[0])
    for tag, body in zip(parts[1::2], parts[2::2]):
        if tag == 'return':
            text += ' <p>In C returns: ' + escaped(body)
        elif tag == 'threads':
            text += '. <p>Threads: ' + escaped(body) + '.'
    return text


def camel(name):
    return re.sub(r'_(\w)', lambda match: match.group(1).upper(), name)


def fields(body):
    """(C name, Java type, documentation) of each member but those of the ABI."""
    for kind, names, comment in FIELD.findall(body):
        for name in names.split(','):
            name, is_array = re.fullmatch(r'\s*(\w+)\s*(\[\w+\])?\s*', name).groups()
            if name in ('struct_size', 'reserved'):
                continue
            java = TYPES[kind]
            if java == 'int' and name.startswith(('is_', 'has_', 'may_be_')):
                java = 'boolean'
            elif java == 'int' and is_array:
                java = 'List<Integer>'
            yield name, java, escaped(comment or '') or name.replace('_', ' ')


def record(c_name, java_name, comment, body):
    members = list(fields(body))
    lists = [name for name, java, _ in members if java.startswith('List')]
    # an array's count is the list's size
    members = [one for one in members if one[0] not in [name + '_count' for name in lists]]
    imports = 'import java.util.Arrays;\nimport java.util.List;\n\n' if lists else ''
    about = escaped(plain(comment)) or f'{c_name} of the C headers.'
    lines = [f'// SPDX-License-Identifier: Apache-2.0\npackage dev.wkv;\n\n{imports}/**\n * {about}\n *']
    lines += [f' * @param {camel(name)} {text}' for name, _, text in members]
    lines += [' */', f'public record {java_name}(']
    lines += [',\n'.join(f'    {java} {camel(name)}' for name, java, _ in members) + ') {']
    values = []
    for name, java, _ in members:
        value = f'raw.get{name[0].upper()}{name[1:]}()'
        if java == 'boolean':
            value += ' != 0'
        elif java == 'NumberType':
            value = f'NumberType.of({value})'
        elif java.startswith('List'):
            value = f'Arrays.stream({value}).limit(raw.get{name[0].upper()}{name[1:]}_count()).boxed().toList()'
        values.append('        ' + value)
    lines += [f'  static {java_name} of(dev.wkv.internal.{java_name} raw) {{', f'    return new {java_name}(']
    lines += [',\n'.join(values) + ');', '  }', '}', '']
    return '\n'.join(lines)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')


def main(include, source, output):
    docs, missing, package = {}, dict(CLASSES), pathlib.Path(output) / 'dev/wkv'
    for header in sorted(pathlib.Path(include).glob('wkv/*.h')):
        text = header.read_text(encoding='utf-8')
        docs.update({name: documentation(comment) for comment, name in FUNCTION.findall(text)})
        for comment, name, body in STRUCT.findall(text):
            if name in missing:
                java_name = missing.pop(name)
                write(package / f'{java_name}.java', record(name, java_name, comment, body))
    if missing:
        raise SystemExit(f'{include}: structs missing: {list(missing)}')
    for path in pathlib.Path(source).rglob('*.java'):
        text = re.sub(r'\{@c (\w+)\}', lambda match: docs[match.group(1)], path.read_text(encoding='utf-8'))
        write(pathlib.Path(output) / path.relative_to(source), text)


if __name__ == '__main__':
    main(*sys.argv[1:])
