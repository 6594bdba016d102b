// ONNX Runtime's C interface in three calls; the library is the file named by the environment variable ORT_LIBRARY.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// One output: its shape, element type and bytes, to be given back with cort_free.
typedef struct {
  int64_t shape[8];
  size_t rank;
  int type;
  size_t bytes;
  void* data;
} CortOutput;

// A session, or NULL; cort_error says why.
void* cort_open(const char* file, int threads);

// One input by name, one output by name; the element types are the C interface's. Zero where it went well.
int cort_run(void* session, const char* input, int type, void* data, size_t bytes, const int64_t* shape, size_t rank, const char* output,
             CortOutput* found);

void cort_free(CortOutput* found);
void cort_close(void* session);
const char* cort_error(void);

#ifdef __cplusplus
}
#endif
