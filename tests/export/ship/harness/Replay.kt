// Runs the Android package's own self-test on a Java machine, with the golden outputs in the runtime's place; arguments: the folder of the
// test assets and, where an output is not one row of scores, its shape for each golden input ("24,1,6;24,1,6"). A second pass through an
// engine that is off by a million must fail.
package packlight.models.critters

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

class Recorded(private val file: ModelFile, private val folder: File, private val shapes: List<IntArray>?, private val off: Float) : Engine {
    private var next = 0

    override fun run(door: ByteBuffer, shape: IntArray): List<Real> {
        val made = shapes?.get(next)
        val run = Goldens.ALL[next++].runs.getValue(file.asset)
        return run.outputs.map { stage ->
            val bytes = ByteBuffer.wrap(File(folder, stage.file).readBytes()).order(ByteOrder.LITTLE_ENDIAN)
            val data = FloatArray(bytes.capacity() / 4) { bytes.getFloat() + off }
            Real(made ?: intArrayOf(1, data.size), data)
        }
    }

    override fun close() = Unit
}

fun main(arguments: Array<String>) {
    val folder = File(arguments[0])
    val shapes = arguments.getOrNull(1)?.split(";")?.map { it.split(",").map(String::toInt).toIntArray() }
    for (file in listOf(ModelSpec.INT8_TFLITE, ModelSpec.INT8_ONNX)) {
        val wrong = Goldens.replay(Recorded(file, folder, shapes, 0f), file) { File(folder, it).readBytes() }
        check(wrong.isEmpty()) { wrong.joinToString("\n") }
        check(Goldens.replay(Recorded(file, folder, shapes, 1e6f), file) { File(folder, it).readBytes() }.isNotEmpty()) { "a wrong output passed" }
    }
    println("replayed ${Goldens.ALL.size}")
}
