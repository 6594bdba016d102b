#include "cort.h"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "ort_c.h"

namespace {

thread_local std::string last_error;

const OrtApi* api() {
  static const OrtApi* found = [] {
    const char* path = std::getenv("ORT_LIBRARY");
    void* library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    if (!library) throw std::runtime_error(path ? dlerror() : "ORT_LIBRARY is not set");
    const auto base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
    if (!base) throw std::runtime_error("the library has no OrtGetApiBase");
    return base()->GetApi(ORT_API_VERSION);
  }();
  return found;
}

void check(OrtStatus* status) {
  if (!status) return;
  const std::string message = api()->GetErrorMessage(status);
  api()->ReleaseStatus(status);
  throw std::runtime_error(message);
}

size_t width_of(ONNXTensorElementDataType type) { return type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ? 4 : 1; }

void read(OrtValue* value, CortOutput* found) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(api()->GetTensorTypeAndShape(value, &info));
  ONNXTensorElementDataType type;
  check(api()->GetTensorElementType(info, &type));
  check(api()->GetDimensionsCount(info, &found->rank));
  if (found->rank > 8) throw std::runtime_error("more than eight axes");
  check(api()->GetDimensions(info, found->shape, found->rank));
  api()->ReleaseTensorTypeAndShapeInfo(info);
  found->type = type;
  found->bytes = width_of(type);
  for (size_t i = 0; i < found->rank; ++i) found->bytes *= static_cast<size_t>(found->shape[i]);
  void* data = nullptr;
  check(api()->GetTensorMutableData(value, &data));
  found->data = std::malloc(found->bytes + 1);
  std::memcpy(found->data, data, found->bytes);
}

OrtEnv* environment() {
  static OrtEnv* env = [] {
    OrtEnv* made = nullptr;
    check(api()->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "proof", &made));
    return made;
  }();
  return env;
}

}  // namespace

void* cort_open(const char* file, int threads) try {
  OrtSessionOptions* options = nullptr;
  check(api()->CreateSessionOptions(&options));
  check(api()->SetIntraOpNumThreads(options, threads));
  OrtSession* session = nullptr;
  OrtStatus* status = api()->CreateSession(environment(), file, options, &session);
  api()->ReleaseSessionOptions(options);
  check(status);
  return session;
} catch (const std::exception& error) {
  last_error = error.what();
  return nullptr;
}

int cort_run(void* session, const char* input, int type, void* data, size_t bytes, const int64_t* shape, size_t rank, const char* output,
             CortOutput* found) try {
  OrtMemoryInfo* memory = nullptr;
  check(api()->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  OrtValue *value = nullptr, *result = nullptr;
  OrtStatus* status = api()->CreateTensorWithDataAsOrtValue(memory, data, bytes, shape, rank, static_cast<ONNXTensorElementDataType>(type), &value);
  api()->ReleaseMemoryInfo(memory);
  check(status);
  status = api()->Run(static_cast<OrtSession*>(session), nullptr, &input, &value, 1, &output, 1, &result);
  api()->ReleaseValue(value);
  check(status);
  read(result, found);
  api()->ReleaseValue(result);
  return 0;
} catch (const std::exception& error) {
  last_error = error.what();
  return 1;
}

void cort_free(CortOutput* found) { std::free(found->data); }
void cort_close(void* session) { api()->ReleaseSession(static_cast<OrtSession*>(session)); }
const char* cort_error(void) { return last_error.c_str(); }
