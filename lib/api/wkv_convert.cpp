// SPDX-License-Identifier: Apache-2.0
// The C entry of convert.h.
#include <wkv/convert.h>

#include "api/edge.h"
#include "formats/bytes.h"
#include "formats/gguf_write.h"
#include "formats/vocabulary.h"
#include "model/hyper_parameters.h"

namespace {

using namespace libwkv;

formats::StoredType matrix_type(wkv_type type) {
  switch (type) {
    case WKV_TYPE_DEFAULT:
    case WKV_TYPE_F16:
      return formats::StoredType::f16;
    case WKV_TYPE_F32:
      return formats::StoredType::f32;
    case WKV_TYPE_BF16:
      return formats::StoredType::bf16;
    case WKV_TYPE_Q8:
      return formats::StoredType::q8_0;
    default:
      fail(WKV_INVALID, "options.weight_type is %d; files are written as F32, F16, BF16 or Q8", type);
  }
}

void convert(const std::string &source, const std::string &target, const wkv_convert_options &options) {
  formats::GgufOptions gguf;
  gguf.matrices = matrix_type(options.weight_type);
  if (options.name) gguf.name = options.name;
  if (!formats::is_utf8(gguf.name)) fail(WKV_INVALID, "options.name is not UTF-8");
  formats::Checkpoint checkpoint = formats::open_checkpoint(source);
  HyperParameters h = derive_hyper_parameters(checkpoint);
  gguf.layers = h.layers;
  gguf.width = h.width;
  gguf.head_size = h.head_size;
  gguf.ffn_width = h.ffn_width;
  gguf.vocab_size = h.vocab_size;
  gguf.rank_w = h.rank_w;
  gguf.rank_a = h.rank_a;
  gguf.rank_v = h.rank_v;
  gguf.rank_g = h.rank_g;
  if (options.progress)
    gguf.progress = [&](uint64_t done, uint64_t total) {
      return options.progress(options.progress_user, done, total) == 0;
    };
  std::vector<formats::VocabularyToken> vocabulary = std::move(checkpoint.vocabulary);
  if (options.vocabulary_path) vocabulary = formats::load_vocabulary(options.vocabulary_path);
  formats::write_gguf(checkpoint, vocabulary, gguf, target);
}

}  // namespace

extern "C" wkv_status wkv_convert(const char *source_path, const char *target_path, const wkv_convert_options *options,
                                  wkv_error *error) {
  return api::guard(error, [&]() -> wkv_status {
    wkv_convert_options copy = api::read_options(options, "options");
    std::string source = api::needed(source_path, "source_path"), target = api::needed(target_path, "target_path");
    if (target.empty()) fail(WKV_INVALID, "target_path is empty");
    convert(source, target, copy);
    return WKV_OK;
  });
}
