// The public API of Android, AndroidX, JUnit, ONNX Runtime and LiteRT that the Android package uses, without any of it: enough to compile.
package android.content

import java.io.InputStream

class AssetManager { fun open(name: String): InputStream = TODO(name) }

abstract class Context { abstract val assets: AssetManager }
