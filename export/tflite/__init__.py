"""TFLite files by an emitter of our own; importing this package registers the exporter "tflite"."""

from ..exporter import exporters
from .exporter import TfliteExporter

exporters.register("tflite")(TfliteExporter())
