package org.junit

annotation class Test

object Assert { @JvmStatic fun assertEquals(wanted: Any?, made: Any?) = check(wanted == made) }
