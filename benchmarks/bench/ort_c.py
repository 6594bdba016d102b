"""Times ONNX Runtime through its C API: ``python ort_c.py model.onnx RUNS`` prints the seconds of each ``Run`` as JSON.

One input (1, 3, 32, 32) float32 "x", one output "y", one thread. The functions' places in ``OrtApi`` are those of onnxruntime_c_api.h;
the struct only ever grows at its end, so they hold for every version.
"""

from __future__ import annotations

import ctypes as c
import gc
import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

CREATE_ENV, CREATE_SESSION, RUN, CREATE_OPTIONS, INTRA_THREADS, TENSOR, MEMORY_INFO, MESSAGE = 3, 7, 9, 10, 24, 49, 69, 2
API_VERSION = 11


def main(file: str, runs: int) -> list[float]:
    (path,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    library = c.CDLL(str(path))
    library.OrtGetApiBase.restype = c.POINTER(c.c_void_p)
    get_api = c.CFUNCTYPE(c.POINTER(c.c_void_p), c.c_uint32)(library.OrtGetApiBase()[0])
    table = get_api(API_VERSION)

    def call(index: int, *args: object) -> None:
        kinds = [c.c_void_p if a is None or isinstance(a, (c.c_void_p, bytes)) or hasattr(a, "_obj") else type(a) for a in args]
        status = c.CFUNCTYPE(c.c_void_p, *kinds)(table[index])(*args)
        if status:
            raise RuntimeError(c.CFUNCTYPE(c.c_char_p, c.c_void_p)(table[MESSAGE])(status).decode())

    env, options, session, info = c.c_void_p(), c.c_void_p(), c.c_void_p(), c.c_void_p()
    call(CREATE_ENV, c.c_int(3), c.c_char_p(b"bench"), c.byref(env))
    call(CREATE_OPTIONS, c.byref(options))
    call(INTRA_THREADS, options, c.c_int(1))
    call(CREATE_SESSION, env, c.c_char_p(file.encode()), options, c.byref(session))
    call(MEMORY_INFO, c.c_int(0), c.c_int(0), c.byref(info))
    x = np.random.default_rng(0).normal(0, 1, (1, 3, 32, 32)).astype(np.float32)
    shape = (c.c_int64 * 4)(*x.shape)
    value = c.c_void_p()
    call(TENSOR, info, c.c_void_p(x.ctypes.data), c.c_size_t(x.nbytes), shape, c.c_size_t(4), c.c_int(1), c.byref(value))
    y = np.zeros((1, 10), np.float32)
    out = c.c_void_p()
    call(TENSOR, info, c.c_void_p(y.ctypes.data), c.c_size_t(y.nbytes), (c.c_int64 * 2)(1, 10), c.c_size_t(2), c.c_int(1), c.byref(out))
    names = (c.c_char_p * 1)(b"x"), (c.c_char_p * 1)(b"y")
    values = (c.c_void_p * 1)(value.value), (c.c_void_p * 1)(out.value)
    pointer, size = c.c_void_p, c.c_size_t
    run = c.CFUNCTYPE(pointer, pointer, pointer, pointer, pointer, size, pointer, size, pointer)(table[RUN])
    words = (
        session,
        None,
        c.cast(names[0], pointer),
        c.cast(values[0], pointer),
        1,
        c.cast(names[1], pointer),
        1,
        c.cast(values[1], pointer),
    )
    for _ in range(200):
        if run(*words):
            raise RuntimeError("Run failed")
    expected = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    gc.disable()
    seconds, clock = [], time.perf_counter_ns
    for _ in range(runs):
        start = clock()
        run(*words)
        seconds.append((clock() - start) / 1e9)
    return seconds


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
