"""TFLite files written by Google's litert-torch: the fallback that a user asks for by name, and the oracle of the emitter's tests.

Importing this package registers the exporter "tflite by litert-torch".
"""

from ..exporter import exporters
from .exporter import LitertTorchExporter

exporters.register("tflite by litert-torch")(LitertTorchExporter())
