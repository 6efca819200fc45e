# SPDX-License-Identifier: Apache-2.0
"""State tensors that other libraries read over DLPack."""
import ctypes
import gc
import os
import sys
import unittest

import support
import wkv

try:
    import numpy
except ImportError:
    numpy = None
try:
    import torch
except ImportError:
    torch = None

OLD, VERSIONED = b'dltensor', b'dltensor_versioned'
SHAPES = {'att_shift': (256,), 'ffn_shift': (256,), 'wkv': (4, 64, 64)}


class _Form(ctypes.Structure):
    """A tensor as DLPack's specification has it."""
    _fields_ = [('data', ctypes.c_void_p), ('device_type', ctypes.c_int32), ('device_index', ctypes.c_int32),
                ('dimensions', ctypes.c_int32), ('type_code', ctypes.c_uint8), ('type_bits', ctypes.c_uint8),
                ('type_lanes', ctypes.c_uint16), ('shape', ctypes.POINTER(ctypes.c_int64)),
                ('strides', ctypes.POINTER(ctypes.c_int64)), ('byte_offset', ctypes.c_uint64)]


class _Old(ctypes.Structure):
    _fields_ = [('tensor', _Form), ('context', ctypes.c_void_p), ('deleter', ctypes.CFUNCTYPE(None, ctypes.c_void_p))]


class _Versioned(ctypes.Structure):
    _fields_ = [('major', ctypes.c_uint32), ('minor', ctypes.c_uint32), ('context', ctypes.c_void_p),
                ('deleter', ctypes.CFUNCTYPE(None, ctypes.c_void_p)), ('flags', ctypes.c_uint64), ('tensor', _Form)]


api = ctypes.pythonapi
api.PyCapsule_IsValid.argtypes = [ctypes.py_object, ctypes.c_char_p]
api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
api.PyCapsule_GetPointer.restype = ctypes.c_void_p
api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]


class Taken:
    """What a consumer does: takes the tensor out of the capsule, reads it, and gives it back by its deleter."""

    def __init__(self, capsule):
        self.form = _Versioned if api.PyCapsule_IsValid(capsule, VERSIONED) else _Old
        name = VERSIONED if self.form is _Versioned else OLD
        self.address = api.PyCapsule_GetPointer(capsule, name)
        self.used_name = b'used_' + name
        api.PyCapsule_SetName(capsule, self.used_name)
        self.managed = self.form.from_address(self.address)
        self.tensor = self.managed.tensor

    def values(self):
        form = self.tensor
        shape, strides = form.shape[:form.dimensions], form.strides[:form.dimensions]
        memory = (ctypes.c_float * (1 + sum((n - 1) * step for n, step in zip(shape, strides)))).from_address(form.data)

        def walk(offset, axis):
            if axis == form.dimensions:
                yield memory[offset]
                return
            for i in range(shape[axis]):
                yield from walk(offset + i * strides[axis], axis + 1)

        return list(walk(form.byte_offset // 4, 0))

    def release(self):
        address, self.address = self.address, None
        if address is not None:
            self.managed.deleter(address)

    __del__ = release


class Tensors(unittest.TestCase):
    def setUp(self):
        self.model = support.story_model()
        self.cache = self.model.cache()
        self.cache.step([1539, 326, 712])

    def test_values_are_those_of_read_state(self):
        for part, shape in SHAPES.items():
            expected = support.numbers(self.cache.read_state(3, part))
            tensor = self.cache.state_tensor(3, part)
            self.assertEqual((tensor.shape, tensor.__dlpack_device__()), (shape, (1, 0)))
            for version, form in ((None, _Old), ((0, 8), _Old), ((1, 0), _Versioned), ((2, 1), _Versioned)):
                taken = Taken(tensor.__dlpack__(max_version=version))
                self.assertIs(taken.form, form)
                self.assertEqual((taken.tensor.type_code, taken.tensor.type_bits, taken.tensor.type_lanes), (2, 32, 1))
                self.assertEqual(tuple(taken.tensor.shape[:taken.tensor.dimensions]), shape)
                self.assertEqual(taken.values(), expected)
                if form is _Versioned:
                    self.assertEqual((taken.managed.major, taken.managed.flags), (1, 0))

    def test_values_stay_when_the_cache_goes_on(self):
        expected = support.numbers(self.cache.read_state(0))
        tensor = self.cache.state_tensor(0)
        early = Taken(tensor.__dlpack__())
        self.cache.step([5])
        self.assertNotEqual(support.numbers(self.cache.read_state(0)), expected)
        late = Taken(tensor.__dlpack__())
        self.cache.close()
        self.assertEqual(early.values(), expected)
        self.assertEqual(late.values(), expected)

    def test_a_tensor_outlives_everything_it_came_from(self):
        model = wkv.Model(support.STORY_MODEL, device='cpu', threads=1)
        cache = model.cache()
        cache.step([1539])
        expected, tensor = support.numbers(cache.read_state(1)), cache.state_tensor(1)
        capsule = tensor.__dlpack__(max_version=(1, 0))
        model.close()
        cache.close()
        del model, cache, tensor
        gc.collect()
        taken = Taken(capsule)
        del capsule  # used: its end releases nothing
        gc.collect()
        self.assertEqual(taken.values(), expected)
        with support.running(taken.release) as outcome:  # in any thread
            pass
        self.assertNotIn('error', outcome)

    def test_a_capsule_that_nobody_takes_releases_its_memory(self):
        tensor = self.cache.state_tensor(0)
        before = sys.getrefcount(tensor._values)
        capsules = [tensor.__dlpack__(max_version=version) for version in (None, (1, 0))]
        self.assertGreater(sys.getrefcount(tensor._values), before)
        del capsules
        self.assertEqual(sys.getrefcount(tensor._values), before)
        taken = Taken(tensor.__dlpack__())
        self.assertGreater(sys.getrefcount(tensor._values), before)
        taken.release()
        self.assertEqual(sys.getrefcount(tensor._values), before)

    def test_copies_are_apart(self):
        tensor = self.cache.state_tensor(0)
        expected = support.numbers(self.cache.read_state(0))
        shared, again, copied = (Taken(tensor.__dlpack__(copy=copy)) for copy in (None, False, True))
        self.assertEqual(shared.tensor.data, again.tensor.data)
        self.assertNotEqual(shared.tensor.data, copied.tensor.data)
        ctypes.c_float.from_address(shared.tensor.data).value = 77.0
        self.assertEqual(again.values()[0], 77.0)
        self.assertEqual(copied.values(), expected)
        self.assertEqual(support.numbers(self.cache.read_state(0)), expected)

    def test_wrong_use(self):
        for arguments, error in (((8,), ValueError), ((-1,), ValueError), ((0, 'no part'), ValueError), (('a',), TypeError)):
            with self.assertRaises(error):
                self.cache.state_tensor(*arguments)
        tensor = self.cache.state_tensor(0)
        with self.assertRaises(BufferError):
            tensor.__dlpack__(dl_device=(2, 0))
        here = Taken(tensor.__dlpack__(dl_device=(1, 0)))
        self.assertEqual(here.tensor.device_type, 1)
        self.assertIn('[4, 64, 64] on cpu', repr(tensor))

    def test_wrong_shapes_are_refused(self):
        room = memoryview(bytearray(24)).cast('f')
        for shape, error in (((2, 4), ValueError), ((-2, -3), ValueError), ((1, 2, 3, 1, 1), ValueError), ([6], TypeError),
                             (('x',), TypeError), ((2 ** 62, 2 ** 62), ValueError), ((), ValueError)):
            with self.subTest(shape), self.assertRaises(error):
                wkv.native.host_capsule(room, shape, True, 0)
        with self.assertRaises(BufferError):
            wkv.native.host_capsule(bytes(24), (6,), True, 0)
        for arguments in ((None, None), (room, None), (None, self.cache._handle)):  # not on a GPU
            with self.assertRaises(wkv.Error):
                wkv.native.device_capsule(*arguments, 0, 2, True, 0)

    @unittest.skipUnless(numpy, 'numpy is not installed')
    def test_numpy(self):
        for part, shape in SHAPES.items():
            state = numpy.from_dlpack(self.cache.state_tensor(2, part))
            self.assertEqual((state.shape, state.dtype), (shape, numpy.float32))
            self.assertEqual(state.ravel().tolist(), support.numbers(self.cache.read_state(2, part)))
        gc.collect()
        self.assertEqual(state.sum(), numpy.asarray(self.cache.read_state(2, part)).sum())

    @unittest.skipUnless(torch, 'torch is not installed')
    def test_torch(self):
        state = torch.from_dlpack(self.cache.state_tensor(2))
        self.assertEqual((tuple(state.shape), state.dtype), ((4, 64, 64), torch.float32))
        self.assertEqual(state.flatten().tolist(), support.numbers(self.cache.read_state(2)))


# A GPU that torch sees too; or tests/plugin's backend, which keeps states in memory of the host and steps with a sum.
has_gpu = torch is not None and torch.cuda.is_available()
if not has_gpu and os.environ.get('WKV_FAKE_DEVICE'):
    os.environ['WKV_CUDA_PATH'] = os.environ['WKV_FAKE_DEVICE']  # looked at when a device is first asked for


@unittest.skipUnless(has_gpu or os.environ.get('WKV_CUDA_PATH'), 'neither a GPU and torch, nor WKV_FAKE_DEVICE')
@unittest.skipUnless(any(device.is_usable for device in wkv.devices()[1:]), 'libwkv is built without CUDA')
class Device(unittest.TestCase):
    """The same on a GPU, where nothing is copied until somebody writes."""

    def setUp(self):
        self.model = wkv.Model(support.STORY_MODEL, device='cuda')
        self.cache = self.model.cache()

    def read(self, layer, part='wkv'):
        return support.numbers(self.cache.read_state(layer, part))

    @staticmethod
    def open(tensor):
        return torch.from_dlpack(tensor) if has_gpu else Taken(tensor.__dlpack__(max_version=(1, 0)))

    @staticmethod
    def numbers(opened):
        return opened.float().cpu().flatten().tolist() if has_gpu else opened.values()

    def test_values_and_order(self):
        for tokens in ([], [1539, 326, 712]):  # all zero, which may have no memory yet, and not
            if tokens:
                self.cache.step(tokens)
            for part, shape in SHAPES.items():
                tensor = self.cache.state_tensor(3, part)
                self.assertEqual((tensor.shape, tensor.__dlpack_device__()), (shape, (2, 0)))
                self.assertEqual(self.numbers(self.open(tensor)), self.read(3, part))
                here = Taken(tensor.__dlpack__(dl_device=(1, 0)))
                self.assertEqual((here.tensor.device_type, here.values()), (1, self.read(3, part)))
            self.assertEqual(any(self.read(3)), bool(tokens))

    def test_values_stay_when_the_cache_goes_on(self):
        self.cache.step([1539, 326, 712])
        expected, tensor = self.read(0), self.cache.state_tensor(0)
        early = self.open(tensor)
        self.cache.step([5])
        self.assertNotEqual(self.read(0), expected)
        late = self.open(tensor)
        self.cache.reset()
        self.cache.close()
        self.model.close()
        del tensor
        gc.collect()
        self.assertEqual(self.numbers(early), expected)
        self.assertEqual(self.numbers(late), expected)

    def test_shared_is_read_only_and_a_copy_is_not(self):
        self.cache.step([1539])
        tensor, expected = self.cache.state_tensor(0), self.read(0)
        shared, again = (Taken(tensor.__dlpack__(max_version=(1, 0), copy=copy)) for copy in (None, False))
        self.assertEqual((shared.managed.flags, shared.tensor.data), (1, again.tensor.data))
        for arguments in ({'copy': False}, {'copy': False, 'dl_device': (1, 0)}, {'dl_device': (2, 1)}):
            with self.assertRaises(BufferError):
                tensor.__dlpack__(**arguments)
        for arguments in ({}, {'max_version': (1, 0), 'copy': True}):
            capsule = tensor.__dlpack__(**arguments)
            if has_gpu:
                torch.from_dlpack(capsule).zero_()
            else:
                own = Taken(capsule)
                self.assertNotEqual(own.tensor.data, shared.tensor.data)
                self.assertEqual((own.values(), getattr(own.managed, 'flags', 2)), (expected, 2))
                ctypes.c_float.from_address(own.tensor.data).value = 77.0
            self.assertEqual(self.read(0), expected)

    def test_a_state_that_is_out_is_not_parked(self):
        self.cache.step([1539])
        expected, opened = self.read(0), self.open(self.cache.state_tensor(0))
        with self.assertRaises(wkv.BusyError):
            self.cache.park()
        del opened
        gc.collect()
        tensor = self.cache.state_tensor(0)
        self.cache.park()
        self.assertEqual(self.numbers(self.open(tensor)), expected)
        with wkv.Model(support.STORY_MODEL, device='cuda', parking_limit_bytes=10 ** 9) as model:
            with self.assertRaises(wkv.UnsupportedError):
                model.cache().state_tensor(0)

    def test_wrong_use(self):
        for arguments, error in (((8,), ValueError), ((-1,), ValueError), ((0, 'no part'), ValueError), (('a',), TypeError)):
            with self.assertRaises(error):
                self.cache.state_tensor(*arguments)


if __name__ == '__main__':
    support.main()
