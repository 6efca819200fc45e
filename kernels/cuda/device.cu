// SPDX-License-Identifier: Apache-2.0
// The one exported symbol: the table of kernels/device.h, and the model behind it.
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "kernels/cuda/failure.h"
#include "kernels/cuda/model.h"
#include "kernels/cuda/runner.h"
#include "kernels/cuda/states.h"
#include "kernels/cuda/upload.h"

namespace libwkv::kernels {

using cuda::check;
using cuda::fail;
using cuda::Layer;

struct DeviceModel {
  DeviceShape shape{};
  DeviceOptions options{};
  cuda::Device device{};
  cuda::StateShape states{};
  cudaStream_t stream = nullptr;
  char *arena = nullptr;  // of all weights
  size_t arena_bytes = 0, arena_used = 0;
  std::vector<Layer> layers;
  cuda::Weights weights{};
  std::vector<std::pair<DevicePart, int64_t>> loaded;  // a tensor's number is its index
  cuda::Upload upload;
  cuda::StatePool pool;
  cuda::Runner runner;
};

namespace {

constexpr int oldest_compute = 75;  // CUDA 13 builds for no older one

__global__ void probe() {}

// The device whose memory and streams the calling thread means.
class OnDevice {
 public:
  explicit OnDevice(int index) {
    (void)cudaGetDevice(&before_);
    if (before_ != index) (void)cudaSetDevice(index);
    is_changed_ = before_ != index;
  }
  ~OnDevice() {
    if (is_changed_) (void)cudaSetDevice(before_);
  }
  OnDevice(const OnDevice &) = delete;
  OnDevice &operator=(const OnDevice &) = delete;

 private:
  int before_ = 0;
  bool is_changed_ = false;
};

// No exception passes the door: what runs out on the host's side is memory.
template <class Body>
auto guarded(DeviceFailure *failure, decltype(std::declval<Body>()()) failed, const Body &body) noexcept {
  try {
    return body();
  } catch (...) {
    fail(failure, cuda::status_out_of_memory, "no host memory");
    return failed;
  }
}

int32_t count_devices(char *reason, size_t capacity) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return count;
  std::snprintf(reason, capacity, "%s",
                error == cudaSuccess ? "the driver shows no CUDA device" : cudaGetErrorString(error));
  return 0;
}

template <size_t size>
void write(char (&field)[size], const char *text) {
  std::snprintf(field, size, "%s", text);
}

void describe(int32_t index, DeviceDescription *out) {
  *out = {};
  cudaDeviceProp properties{};
  const cudaError_t error = cudaGetDeviceProperties(&properties, index);
  if (error != cudaSuccess) return write(out->reason, cudaGetErrorString(error));
  std::snprintf(out->description, sizeof out->description, "%.80s, %d multiprocessors, compute %d.%d", properties.name,
                properties.multiProcessorCount, properties.major, properties.minor);
  std::snprintf(out->kernels, sizeof out->kernels, "cuda sm_%d%d", properties.major, properties.minor);
  out->memory_bytes = properties.totalGlobalMem;
  out->processors = properties.multiProcessorCount;
  const int compute = properties.major * 10 + properties.minor;
  if (compute < oldest_compute) {
    std::snprintf(out->reason, sizeof out->reason, "compute %d.%d is below %d.%d", properties.major, properties.minor,
                  oldest_compute / 10, oldest_compute % 10);
    return;
  }
  const OnDevice on(index);
  cudaFuncAttributes attributes{};
  const cudaError_t image = cudaFuncGetAttributes(&attributes, probe);
  if (image != cudaSuccess) {
    (void)cudaGetLastError();
    std::snprintf(out->reason, sizeof out->reason, "no kernels for compute %d.%d: %s", properties.major,
                  properties.minor, cudaGetErrorString(image));
    return;
  }
  out->is_usable = 1;
}

cuda::StateShape state_shape(const DeviceShape &shape, bool is_half) {
  return {shape.layers, shape.width, shape.heads, shape.head_size, is_half};
}

uint64_t state_bytes(const DeviceShape *shape, bool is_half) { return state_shape(*shape, is_half).bytes(); }

uint64_t part_bytes(const DeviceShape *shape, DevicePart part, Format format) {
  return cuda::part_bytes(*shape, part, format);
}

const float **vector_of(cuda::Weights &weights, Layer *layer, DevicePart part) {
  switch (part) {
    case DevicePart::ln0_weight:
      return &weights.ln0_weight;
    case DevicePart::ln0_bias:
      return &weights.ln0_bias;
    case DevicePart::ln_out_weight:
      return &weights.ln_out_weight;
    case DevicePart::ln_out_bias:
      return &weights.ln_out_bias;
    case DevicePart::ln1_weight:
      return &layer->ln1_weight;
    case DevicePart::ln1_bias:
      return &layer->ln1_bias;
    case DevicePart::ln2_weight:
      return &layer->ln2_weight;
    case DevicePart::ln2_bias:
      return &layer->ln2_bias;
    case DevicePart::ln_x_weight:
      return &layer->ln_x_weight;
    case DevicePart::ln_x_bias:
      return &layer->ln_x_bias;
    case DevicePart::x_r:
      return &layer->x_r;
    case DevicePart::x_w:
      return &layer->x_w;
    case DevicePart::x_k:
      return &layer->x_k;
    case DevicePart::x_v:
      return &layer->x_v;
    case DevicePart::x_a:
      return &layer->x_a;
    case DevicePart::x_g:
      return &layer->x_g;
    case DevicePart::ffn_x_k:
      return &layer->ffn_x_k;
    case DevicePart::w0:
      return &layer->w0;
    case DevicePart::a0:
      return &layer->a0;
    case DevicePart::v0:
      return &layer->v0;
    case DevicePart::k_k:
      return &layer->k_k;
    case DevicePart::k_a:
      return &layer->k_a;
    case DevicePart::r_k:
      return &layer->r_k;
    default:
      return nullptr;
  }
}

cuda::Matrix *matrix_of(cuda::Weights &weights, Layer *layer, DevicePart part) {
  switch (part) {
    case DevicePart::embedding:
      return &weights.embedding;
    case DevicePart::head:
      return &weights.head;
    case DevicePart::receptance:
      return &layer->receptance;
    case DevicePart::key:
      return &layer->key;
    case DevicePart::value:
      return &layer->value;
    case DevicePart::output:
      return &layer->output;
    case DevicePart::ffn_key:
      return &layer->ffn_key;
    case DevicePart::ffn_value:
      return &layer->ffn_value;
    case DevicePart::w1:
      return &layer->w1;
    case DevicePart::a1:
      return &layer->a1;
    case DevicePart::v1:
      return &layer->v1;
    case DevicePart::g1:
      return &layer->g1;
    case DevicePart::w2:
      return &layer->w2;
    case DevicePart::a2:
      return &layer->a2;
    case DevicePart::v2:
      return &layer->v2;
    case DevicePart::g2:
      return &layer->g2;
    default:
      return nullptr;
  }
}

// Attributes of a device; all zero when it cannot be asked.
cuda::Device device_of(int index) {
  cuda::Device device{index, 0, 0, 0, 0};
  (void)cudaDeviceGetAttribute(&device.processors, cudaDevAttrMultiProcessorCount, index);
  (void)cudaDeviceGetAttribute(&device.major, cudaDevAttrComputeCapabilityMajor, index);
  (void)cudaDeviceGetAttribute(&device.minor, cudaDevAttrComputeCapabilityMinor, index);
  (void)cudaDeviceGetAttribute(&device.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
  return device;
}

// A model whose tensors have shapes and formats and no memory, from which the same ways follow as from the real one.
struct Outline {
  std::vector<Layer> layers;
  cuda::RunnerModel model{};

  Outline(const DeviceShape &shape, const DeviceOptions &options, const DeviceFormats &formats)
      : layers(static_cast<size_t>(shape.layers)) {
    model.shape = shape;
    model.options = options;
    model.device = device_of(options.index);
    model.states = state_shape(shape, options.is_half_state != 0);
    for (size_t i = 0; i < formats.count; i++) {
      const auto [part, format, layer] = formats.tensors[i];
      cuda::Matrix *matrix = matrix_of(model.weights, layer >= 0 ? &layers[static_cast<size_t>(layer)] : nullptr, part);
      if (!matrix) continue;
      const cuda::PartShape s = cuda::part_shape(shape, part);
      *matrix = {nullptr, nullptr, s.outputs, s.inputs, format, cuda::part_order(part, format)};
    }
    model.weights.layers = layers.data();
  }
};

uint64_t workspace_bytes(const DeviceShape *shape, const DeviceOptions *options, const DeviceFormats *formats,
                         int64_t rows, int64_t logits_rows) {
  try {
    return cuda::Runner::workspace_bytes(Outline(*shape, *options, *formats).model, rows, logits_rows);
  } catch (...) {
    return UINT64_MAX;  // more than anybody has: the caller cannot get it
  }
}

uint64_t copies_bytes(const DeviceShape *shape, const DeviceOptions *options, const DeviceFormats *formats) {
  try {
    return cuda::Runner::copies_bytes(Outline(*shape, *options, *formats).model);
  } catch (...) {
    return UINT64_MAX;
  }
}

int64_t chunk_rows(const DeviceShape *, const DeviceOptions *, int64_t rows, int64_t most) {
  return cuda::Runner::chunk_rows(rows, most);
}

void destroy(DeviceModel *model) {
  if (!model) return;
  const OnDevice on(model->options.index);
  if (model->stream) (void)cudaStreamSynchronize(model->stream);
  (void)cudaFree(model->arena);
  cudaStream_t stream = model->stream;
  delete model;
  if (stream) (void)cudaStreamDestroy(stream);
}

bool set_up(DeviceModel &model, DeviceFailure *failure) {
  model.device = device_of(model.options.index);
  return check(cudaStreamCreateWithFlags(&model.stream, cudaStreamNonBlocking), "a stream", failure) &&
         check(cudaMalloc(&model.arena, model.arena_bytes), "the weights", failure) &&
         model.upload.begin(model.stream, failure) && model.pool.begin(model.states, model.stream, failure);
}

DeviceModel *create(const DeviceShape *shape, const DeviceOptions *options, uint64_t weights_bytes,
                    DeviceFailure *failure) {
  return guarded(failure, static_cast<DeviceModel *>(nullptr), [&]() -> DeviceModel * {
    const OnDevice on(options->index);
    auto model = std::make_unique<DeviceModel>();
    model->shape = *shape;
    model->options = *options;
    model->states = state_shape(*shape, options->is_half_state != 0);
    model->arena_bytes = weights_bytes;
    model->layers.resize(static_cast<size_t>(shape->layers));
    model->weights.layers = model->layers.data();
    if (set_up(*model, failure)) return model.release();
    destroy(model.release());
    return nullptr;
  });
}

bool load(DeviceModel *model, DevicePart part, int64_t layer, const DeviceSource *source, Format format,
          DeviceFailure *failure) {
  return guarded(failure, false, [&] {
    const OnDevice on(model->options.index);
    if (layer >= model->shape.layers) return fail(failure, cuda::status_internal, "layer %d", static_cast<int>(layer));
    const size_t bytes = cuda::part_bytes(model->shape, part, format);
    if (bytes > model->arena_bytes - model->arena_used)
      return fail(failure, cuda::status_internal, "weights pass the %zu bytes planned for them", model->arena_bytes);
    const cuda::PartShape shape = cuda::part_shape(model->shape, part);
    char *place = model->arena + model->arena_used;
    cuda::Matrix matrix{place, nullptr, shape.outputs, shape.inputs, format, cuda::part_order(part, format)};
    const size_t values = cuda::aligned(cuda::values_bytes(format, shape.outputs, shape.inputs));
    if (values < bytes) matrix.scales = place + values;
    model->arena_used += bytes;
    Layer *of = layer >= 0 ? &model->layers[static_cast<size_t>(layer)] : nullptr;
    if (shape.is_vector)
      *vector_of(model->weights, of, part) = reinterpret_cast<const float *>(place);
    else
      *matrix_of(model->weights, of, part) = matrix;
    model->loaded.emplace_back(part, layer);
    return model->upload.send(*source, matrix, static_cast<int32_t>(model->loaded.size()) - 1, failure);
  });
}

bool finish_load(DeviceModel *model, DeviceFailure *failure) {
  return guarded(failure, false, [&] {
    const OnDevice on(model->options.index);
    int32_t overflowed = -1;
    if (!check(model->upload.finish(&overflowed), "loading", failure)) return false;
    if (overflowed >= 0) {
      const auto [part, layer] = model->loaded[static_cast<size_t>(overflowed)];
      return fail(failure, cuda::status_unsupported,
                  "a weight of layer %d (part %d) is beyond 65504, which F16 cannot hold; F32 weights can",
                  static_cast<int>(layer), static_cast<int>(part));
    }
    return model->runner.begin(
        {model->shape, model->options, model->device, model->states, model->weights, model->stream}, failure);
  });
}

void name_kernels(const DeviceModel *model, char *text, size_t capacity) {
  std::snprintf(text, capacity, "cuda sm_%d%d", model->device.major, model->device.minor);
}

void *state_allocate(DeviceModel *model, DeviceFailure *failure) {
  return guarded(failure, static_cast<void *>(nullptr), [&] {
    const OnDevice on(model->options.index);
    return model->pool.allocate(failure);
  });
}

void state_free(DeviceModel *model, void *state) {
  const OnDevice on(model->options.index);
  model->pool.free(state);
}

bool state_zero(DeviceModel *model, void *state, DeviceFailure *failure) {
  const OnDevice on(model->options.index);
  return model->pool.zero(state, failure);
}

bool state_copy(DeviceModel *model, const void *from, void *to, DeviceFailure *failure) {
  const OnDevice on(model->options.index);
  return model->pool.copy(from, to, failure);
}

bool state_read(DeviceModel *model, const void *state, size_t first, size_t count, float *values,
                DeviceFailure *failure) {
  const OnDevice on(model->options.index);
  return model->pool.read(state, first, count, values, failure);
}

bool state_write(DeviceModel *model, void *state, size_t first, size_t count, const float *values,
                 DeviceFailure *failure) {
  const OnDevice on(model->options.index);
  return model->pool.write(state, first, count, values, failure);
}

void *state_park(DeviceModel *model, void *state, DeviceFailure *failure) {
  return guarded(failure, static_cast<void *>(nullptr), [&] {
    const OnDevice on(model->options.index);
    return model->pool.park(state, failure);
  });
}

void *state_unpark(DeviceModel *model, void *parked, DeviceFailure *failure) {
  return guarded(failure, static_cast<void *>(nullptr), [&] {
    const OnDevice on(model->options.index);
    return model->pool.unpark(parked, failure);
  });
}

void parked_free(DeviceModel *model, void *parked) {
  const OnDevice on(model->options.index);
  model->pool.free_parked(parked);
}

void *state_place(DeviceModel *model, void *state, size_t first) { return model->pool.place_of(state, first); }

void *queue(DeviceModel *model) { return model->stream; }

bool reserve(DeviceModel *model, int64_t rows, int64_t logits_rows, DeviceFailure *failure) {
  return guarded(failure, false, [&] {
    const OnDevice on(model->options.index);
    return model->runner.reserve(rows, logits_rows, failure);
  });
}

DeviceOutcome run(DeviceModel *model, const DeviceBatch *batch, DeviceFailure *failure) {
  return guarded(failure, DeviceOutcome::failed, [&] {
    const OnDevice on(model->options.index);
    return model->runner.run(*batch, failure);
  });
}

bool start_ahead(DeviceModel *model, const DeviceAheadStep *step, DeviceFailure *failure) {
  return guarded(failure, false, [&] {
    const OnDevice on(model->options.index);
    return model->runner.start_ahead(*step, failure);
  });
}

bool finish_ahead(DeviceModel *model, int32_t *token, DeviceFailure *failure) {
  return guarded(failure, false, [&] {
    const OnDevice on(model->options.index);
    return model->runner.finish_ahead(token, failure);
  });
}

constexpr DeviceTable table{
    sizeof(DeviceTable), device_table_version, "cuda",      count_devices, describe,   part_bytes, copies_bytes,
    state_bytes,         workspace_bytes,      chunk_rows,  create,        destroy,    load,       finish_load,
    name_kernels,        state_allocate,       state_free,  state_zero,    state_copy, state_read, state_write,
    state_park,          state_unpark,         parked_free, state_place,   queue,      reserve,    run,
    start_ahead,         finish_ahead};

}  // namespace
}  // namespace libwkv::kernels

extern "C" __attribute__((visibility("default"))) const libwkv::kernels::DeviceTable *wkv_device_table() {
  return &libwkv::kernels::table;
}
