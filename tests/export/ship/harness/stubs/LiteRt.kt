@file:Suppress("UNUSED_PARAMETER")

package org.tensorflow.lite

import java.nio.ByteBuffer

interface Tensor {
    fun shape(): IntArray
    fun numBytes(): Int
}

class Interpreter(model: ByteBuffer, options: Options) : AutoCloseable {
    class Options { fun setNumThreads(threads: Int): Options = this }

    fun getInputTensor(index: Int): Tensor = TODO()
    fun getOutputTensor(index: Int): Tensor = TODO()
    fun resizeInput(index: Int, shape: IntArray) = Unit
    fun allocateTensors() = Unit
    fun runForMultipleInputsOutputs(inputs: Array<Any>, outputs: Map<Int, Any>) = Unit
    override fun close() = Unit
}
