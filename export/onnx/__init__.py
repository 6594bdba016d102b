"""ONNX: from the torch.export graph, through named rewrites, to one file."""
