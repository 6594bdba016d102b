@file:Suppress("UNUSED_PARAMETER")

package ai.onnxruntime

import java.nio.ByteBuffer
import java.nio.FloatBuffer
import java.util.Optional

enum class OnnxJavaType { FLOAT, INT8, UINT8 }

interface ValueInfo

class TensorInfo(val shape: LongArray) : ValueInfo

interface OnnxValue : AutoCloseable { val info: ValueInfo }

abstract class OnnxTensor : OnnxValue {
    abstract val byteBuffer: ByteBuffer

    companion object {
        @JvmStatic fun createTensor(environment: OrtEnvironment, data: FloatBuffer, shape: LongArray): OnnxTensor = TODO()
        @JvmStatic fun createTensor(environment: OrtEnvironment, data: ByteBuffer, shape: LongArray, type: OnnxJavaType): OnnxTensor = TODO()
    }
}

class OrtEnvironment {
    fun createSession(model: ByteArray, options: OrtSession.SessionOptions): OrtSession = TODO()

    companion object { @JvmStatic fun getEnvironment(): OrtEnvironment = OrtEnvironment() }
}

class OrtSession : AutoCloseable {
    class SessionOptions : AutoCloseable {
        fun setIntraOpNumThreads(threads: Int) = Unit
        override fun close() = Unit
    }

    abstract class Result : AutoCloseable { abstract fun get(name: String): Optional<OnnxValue> }

    fun run(inputs: Map<String, OnnxTensor>): Result = TODO()
    override fun close() = Unit
}
