# SPDX-License-Identifier: Apache-2.0
"""The interface as a whole: every function of the library is there, documented and typed; the process survives misuse."""
import importlib.util
import inspect
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import support
import wkv
from wkv import native

# functions of the C ABI that are not methods of the class map under their own names
ELSEWHERE = {
    'wkv_cache_save': 'save_as', 'wkv_cache_serialize': 'serialize_as', 'wkv_cache_export': 'export_state',
    'wkv_cache_import': 'import_state', 'wkv_sampler_get_probabilities': 'read_probabilities', 'wkv_version': 'version',
    'wkv_abi_version': 'abi_version', 'wkv_status_name': 'status_name', 'wkv_device_count': 'device_count',
    'wkv_device_get_info': 'device_get_info', 'wkv_convert': 'convert',
}
# classes.i says why; states on a GPU go out over DLPack (tensor_test.py)
LEFT_OUT = {'wkv_model_load_memory', 'wkv_cache_repeat', 'wkv_cache_get_tensor', 'wkv_model_get_stream'}
LONG_CALLS = {
    'Model_load', 'Model_plan_memory', 'Model_step', 'Model_step_watched', 'InitialState_load', 'Cache_step', 'Cache_save_as',
    'Cache_load', 'Cache_serialize_as', 'Cache_deserialize', 'Tokenizer_load', 'PrefixStore_create', 'PrefixStore_find',
    'PrefixStore_put', 'PrefixStore_clear', 'Generation_next', 'Session_save', 'Session_load', 'Session_serialize',
    'Session_deserialize', 'convert',
}
CLASSES = [wkv.Model, wkv.Cache, wkv.Generation, wkv.Sampler, wkv.Tokenizer, wkv.Decoder, wkv.PrefixStore, wkv.Session,
           wkv.InitialState]


class Interface(unittest.TestCase):
    def test_every_function_is_wrapped(self):
        symbols = re.findall(r'^wkv_\w+', (support.ROOT / 'lib/api/exports.txt').read_text(), re.M)
        self.assertGreater(len(symbols), 60)
        nouns = {re.sub('(?<!^)([A-Z])', r'_\1', name).lower(): kind for name, kind in vars(native).items()
                 if inspect.isclass(kind)}
        for symbol in symbols:
            if symbol in LEFT_OUT or symbol.endswith('_release'):
                continue
            name = symbol[4:]
            noun = max((noun for noun in nouns if name.startswith(noun + '_')), key=len, default=None)
            verb = ELSEWHERE.get(symbol, name[len(noun) + 1:] if noun else name)
            home = nouns[noun] if noun and hasattr(nouns[noun], verb) else native
            self.assertTrue(hasattr(home, verb), symbol)

    def test_statuses_have_an_exception_each(self):
        names = [name for name in vars(native) if getattr(native, name) in range(-11, 0) and name.isupper()]
        self.assertEqual(len(names), 11)
        for name in names:
            error = wkv.errors.from_status(getattr(native, name), 'text')
            self.assertEqual(error.name, 'WKV_' + name)
            self.assertEqual(error.name, native.status_name(error.code))
        later = wkv.errors.from_status(-99, 'text')
        self.assertEqual((type(later), later.code, str(later)), (wkv.Error, -99, 'text'))

    def test_everything_is_documented(self):
        for name in wkv.__all__:
            self.assertTrue(inspect.getdoc(getattr(wkv, name)), name)
        for kind in CLASSES:
            for name, member in vars(kind).items():
                if not name.startswith('_') and (callable(member) or isinstance(member, (property, staticmethod))):
                    self.assertTrue(inspect.getdoc(getattr(kind, name)), f'{kind.__name__}.{name}')
        self.assertIn('fork', wkv.Cache.copy.__doc__)

    def test_versions(self):
        header = (support.ROOT / 'include/wkv/version.h').read_text()
        self.assertIn(f'"{wkv.__version__}"', header)
        self.assertEqual(native.VERSION_STRING, wkv.__version__)
        self.assertEqual(wkv.abi_version(), native.ABI_VERSION)

    def test_types(self):
        package = pathlib.Path(wkv.__file__).parent
        self.assertTrue((package / 'py.typed').exists())
        if importlib.util.find_spec('mypy') is None:
            self.skipTest('mypy is not installed')
        with tempfile.TemporaryDirectory() as folder:  # mypy does not judge what is installed
            shutil.copytree(package, pathlib.Path(folder) / 'wkv', ignore=shutil.ignore_patterns('*.so*', '__pycache__'))
            # what transformers says of its types changes with every version, and much of it is untyped
            (pathlib.Path(folder) / 'mypy.ini').write_text('[mypy]\n[mypy-torch.*,transformers.*]\nfollow_imports = skip\n')
            done = subprocess.run([sys.executable, '-m', 'mypy', '--strict', '--ignore-missing-imports',
                                   '--cache-dir=/dev/null', 'wkv'], capture_output=True, text=True, cwd=folder)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    @unittest.skipUnless(os.environ.get('WKV_PYTHON_WRAPPER'), 'WKV_PYTHON_WRAPPER does not name the generated file')
    def test_only_long_calls_give_the_lock_up(self):
        text = pathlib.Path(os.environ['WKV_PYTHON_WRAPPER']).read_text()
        functions = re.findall(r'^SWIGINTERN PyObject \*_wrap_(\w+)\(.*?^}', text, re.M | re.S)
        self.assertGreater(len(functions), 200)
        free = {name for name, body in re.findall(r'^SWIGINTERN PyObject \*_wrap_(\w+)\((.*?)^}', text, re.M | re.S)
                if 'Py_BEGIN_ALLOW_THREADS' in body or 'SWIG_PYTHON_THREAD_BEGIN_ALLOW' in body}
        self.assertEqual(free, LONG_CALLS)

    def test_other_threads_run_during_a_step(self):
        # with the lock held, this thread could not even ask
        cache = support.story_model().cache()
        with support.stepping(self, cache) as outcome:
            turns, end = 0, time.monotonic() + 0.1
            while time.monotonic() < end and not outcome:
                turns += 1
        self.assertGreater(turns, 1000)

    def test_caches_of_one_model_in_many_threads(self):
        model = support.story_model()
        expected = support.numbers(model.cache().step([1, 2, 3]))
        rows = [None] * 8

        def work(i):
            rows[i] = support.numbers(model.cache().step([1, 2, 3]))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(rows, [expected] * 8)


if __name__ == '__main__':
    support.main()
