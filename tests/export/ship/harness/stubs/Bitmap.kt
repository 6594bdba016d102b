package android.graphics

@Suppress("UNUSED_PARAMETER")
class Bitmap(val width: Int, val height: Int) {
    fun hasAlpha(): Boolean = false
    fun getPixels(pixels: IntArray, offset: Int, stride: Int, x: Int, y: Int, width: Int, height: Int) = Unit
}
