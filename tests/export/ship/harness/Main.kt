// Runs the Kotlin preprocessing over the cases on stdin, one a line; see test_preprocess.py for the fields.
package packlight.test

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

fun numbers(text: String) = if (text == "-") floatArrayOf() else text.split(",").map { it.toFloat() }.toFloatArray()

fun main() {
    for (line in generateSequence(::readlnOrNull).filter { it.isNotEmpty() }) {
        val f = line.split(" ")
        val n = { i: Int -> f[i].toInt() }
        val spec = Preprocess.Spec(
            Preprocess.Colour.valueOf(f[6]), n(7), n(8), n(9), n(10) != 0, n(11), n(12), numbers(f[13]), numbers(f[14]),
        )
        val image = Preprocess.Image(n(2), n(3), n(4), File(f[0]).readBytes())
        val pixels = Preprocess.geometry(Preprocess.upright(image, n(5)), spec)
        val tensor = Preprocess.normalise(pixels, spec)
        val out = ByteBuffer.allocate(12 + pixels.data.size + tensor.size * 4).order(ByteOrder.LITTLE_ENDIAN)
        out.putInt(pixels.height).putInt(pixels.width).putInt(pixels.channels).put(pixels.data)
        tensor.forEach { out.putFloat(it) }
        File(f[1]).writeBytes(out.array())
    }
}
