"""The other side of ``aside.Aside``: reads files and inputs from stdin, runs them in tflite-runtime, writes outputs to stdout."""

import io
import struct
import sys

import numpy as np
from tflite_runtime.interpreter import Interpreter, OpResolverType


def answer(message):
    xnnpack = bool(message["xnnpack"])
    kind = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=message["model"].tobytes(), num_threads=1, experimental_op_resolver_type=kind)
    given = {name[3:]: message[name] for name in message.files if name.startswith("in.")}
    names = interpreter.get_signature_list()["serving_default"]
    out = interpreter.get_signature_runner()(**{name: given[name] for name in names["inputs"]})
    return {f"out.{name}": value for name, value in out.items()}


def main():
    read, write = sys.stdin.buffer, sys.stdout.buffer
    while head := read.read(8):
        with np.load(io.BytesIO(read.read(struct.unpack("<q", head)[0])), allow_pickle=False) as message:
            try:
                result = answer(message)
            except Exception as error:
                result = {"error": np.array(str(error) or type(error).__name__)}
        blob = io.BytesIO()
        np.savez(blob, **result)
        write.write(struct.pack("<q", blob.tell()) + blob.getvalue())
        write.flush()


if __name__ == "__main__":
    main()
