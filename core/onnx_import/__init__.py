"""An ``.onnx`` file from elsewhere as a Bundle.

    read      the file, never trusted: sizes, external data inside its folder, onnx's checker
    build     each ONNX node becomes a step of a torch module, in plain torch operators (``ops/``, one family a file)
    fold      what depends on constants alone is computed once
    capture   the module is traced by ``torch.export``, with a free batch where the rows prove independent of it
    prove     ONNX Runtime must give the same outputs, or nothing is imported

An operator that torch can't compute exactly is refused by its name and its node's, with what to try.
"""
