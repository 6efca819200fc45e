// SPDX-License-Identifier: Apache-2.0
// The class map: one class a noun. A method has the name and the arguments of its C function and no body: SWIG calls
// wkv_cache_step for wkv_cache::step, and the compiler holds both to the same types. (A body that called it would call
// itself.) Not here, and why:
//   wkv_model_load_memory: the bytes would have to outlive every object made from the model
//   wkv_cache_repeat:      wkv_cache_select with each index several times
//   wkv_cache_get_tensor, wkv_model_get_stream: addresses on a GPU, for programs that call CUDA themselves. Python gives
//                          states out over DLPack, which owns what it points to (python/typemaps/dlpack.i)
//   wkv_prefix_storage:    calls back into the language; a directory does not
%define %wkv_handle(tag)
%nodefaultctor tag;
struct tag {
  %extend {
    ~tag() { tag##_release($self); }
  }
};
%enddef

%wkv_handle(wkv_model)
%wkv_handle(wkv_initial_state)
%wkv_handle(wkv_cache)
%wkv_handle(wkv_sampler)
%wkv_handle(wkv_tokenizer)
%wkv_handle(wkv_decoder)
%wkv_handle(wkv_prefix_store)
%wkv_handle(wkv_generation)

// Calls that compute or touch the disk, and nothing else: other threads of the language run meanwhile. Getters keep the
// language's lock: giving it up costs far more than they do.
%wkv_long_call(wkv_model::load)
%wkv_long_call(wkv_model::plan_memory)
%wkv_long_call(wkv_model::step)
%wkv_long_call(wkv_model::step_watched)
%wkv_long_call(wkv_initial_state::load)
%wkv_long_call(wkv_cache::step)
%wkv_long_call(wkv_cache::save_as)
%wkv_long_call(wkv_cache::load)
%wkv_long_call(wkv_cache::serialize_as)
%wkv_long_call(wkv_cache::deserialize)
%wkv_long_call(wkv_tokenizer::load)
%wkv_long_call(wkv_prefix_store::create)
%wkv_long_call(wkv_prefix_store::find)
%wkv_long_call(wkv_prefix_store::put)
%wkv_long_call(wkv_prefix_store::clear)
%wkv_long_call(wkv_generation::next)
%wkv_long_call(wkv_session::save)
%wkv_long_call(wkv_session::load)
%wkv_long_call(wkv_session::serialize)
%wkv_long_call(wkv_session::deserialize)
%wkv_long_call(wkv_convert)

%extend wkv_model {
  static wkv_status load(const char *path, const wkv_model_options *options, wkv_model **model, wkv_error *error);
  static wkv_status plan_memory(const char *path, const wkv_model_options *options, wkv_memory_plan *plan,
                                wkv_error *error);
  wkv_status get_info(wkv_model_info *info, wkv_error *error) const;
  wkv_status get_memory(wkv_memory_info *info, wkv_error *error) const;
  wkv_status get_tokenizer(wkv_tokenizer **tokenizer, wkv_error *error);
  wkv_status step(wkv_step_item *items, size_t items_count, wkv_error *error);
  wkv_status step_watched(wkv_step_item *items, size_t items_count, const wkv_step_options *options, wkv_error *error);
}

%extend wkv_initial_state {
  static wkv_status load(wkv_model *model, const char *path, const wkv_initial_state_options *options,
                         wkv_initial_state **state, wkv_error *error);
  wkv_status get_info(wkv_initial_state_info *info, wkv_error *error) const;
}

%extend wkv_cache {
  static wkv_status create(wkv_model *model, const wkv_cache_options *options, wkv_cache **cache, wkv_error *error);
  wkv_status copy(wkv_cache **copy, wkv_error *error);
  wkv_status assign(wkv_cache *source, wkv_error *error);
  wkv_status reset(wkv_error *error);
  wkv_status park(wkv_error *error);
  static wkv_status select(wkv_cache *const *caches, size_t caches_count, const size_t *indices, wkv_cache **copies,
                           size_t copies_count, wkv_error *error);
  static wkv_status reorder(wkv_cache *const *caches, const size_t *sources, size_t caches_count, wkv_error *error);
  wkv_status step(const int32_t *tokens, size_t tokens_count, float *logits, size_t logits_count, wkv_error *error);

  wkv_status mark(uint64_t *position, wkv_error *error);
  wkv_status unmark(uint64_t position, wkv_error *error);
  wkv_status rollback(uint64_t position, wkv_error *error);
  wkv_status get_kept_positions(uint64_t *positions, size_t capacity, size_t *positions_count, wkv_error *error) const;

  wkv_status get_info(wkv_cache_info *info, wkv_error *error) const;
  wkv_status read_state(int32_t layer, wkv_state_part part, float *values, size_t values_count, wkv_error *error);
  wkv_status write_state(int32_t layer, wkv_state_part part, const float *values, size_t values_count,
                         wkv_error *error);
  wkv_status check(int32_t *layer, wkv_state_part *part, wkv_error *error);
  // export is a word of C++, import one of Python
  wkv_status export_state(wkv_state_layout layout, float *values, size_t values_count, wkv_error *error) {
    return wkv_cache_export($self, layout, values, values_count, error);
  }
  wkv_status import_state(wkv_state_layout layout, const float *values, size_t values_count, uint64_t position,
                          wkv_error *error) {
    return wkv_cache_import($self, layout, values, values_count, position, error);
  }

  wkv_status save_as(const char *path, const wkv_save_options *options, wkv_error *error);
  static wkv_status load(wkv_model *model, const char *path, wkv_cache **cache, wkv_error *error);
  wkv_status serialize_as(const wkv_save_options *options, void *bytes, size_t capacity, size_t *bytes_count,
                          wkv_error *error);
  static wkv_status deserialize(wkv_model *model, const void *bytes, size_t bytes_count, wkv_cache **cache,
                                wkv_error *error);
  static wkv_status read_header(const char *path, wkv_blob_info *info, wkv_error *error);
  static wkv_status read_header_memory(const void *bytes, size_t bytes_count, wkv_blob_info *info, wkv_error *error);
}

%extend wkv_sampler {
  static wkv_status create(const wkv_sampler_options *options, wkv_sampler **sampler, wkv_error *error);
  wkv_status sample(const float *logits, size_t logits_count, int32_t *token, wkv_error *error);
  wkv_status accept(int32_t token, wkv_error *error);
  wkv_status reset(uint64_t seed, wkv_error *error);
  // The C function has one count for two arrays; two buffers of a language each bring their own.
  wkv_status read_probabilities(const float *logits, size_t logits_count, float *values, size_t values_count,
                                wkv_error *error) {
    if (values_count != logits_count) return wkv_bind::fail(error, "probabilities and logits differ in size");
    return wkv_sampler_get_probabilities($self, logits, logits_count, values, error);
  }
}

%extend wkv_tokenizer {
  static wkv_status load(const char *path, wkv_tokenizer **tokenizer, wkv_error *error);
  static wkv_status load_memory(const void *bytes, size_t bytes_count, wkv_tokenizer **tokenizer, wkv_error *error);
  wkv_status get_info(wkv_tokenizer_info *info, wkv_error *error) const;
  wkv_status encode(const char *text, size_t text_bytes, int32_t *tokens, size_t capacity, size_t *tokens_count,
                    wkv_error *error) const;
  wkv_status decode(const int32_t *tokens, size_t tokens_count, char *text, size_t capacity, size_t *text_bytes,
                    wkv_error *error) const;
}

%extend wkv_decoder {
  static wkv_status create(wkv_tokenizer *tokenizer, wkv_decoder **decoder, wkv_error *error);
  wkv_status push(int32_t token, const char **text, size_t *text_bytes, wkv_error *error);
  wkv_status finish(const char **text, size_t *text_bytes, wkv_error *error);
}

%extend wkv_prefix_store {
  static wkv_status create(wkv_model *model, const wkv_prefix_store_options *options, wkv_prefix_store **store,
                           wkv_error *error);
  wkv_status find(const int32_t *tokens, size_t tokens_count, wkv_cache *cache, size_t *known_count, wkv_error *error);
  wkv_status put(const int32_t *tokens, size_t tokens_count, wkv_cache *cache, wkv_error *error);
  wkv_status clear(wkv_error *error);
  wkv_status get_info(wkv_prefix_store_info *info, wkv_error *error);
}

%extend wkv_generation {
  static wkv_status create(wkv_cache *cache, wkv_sampler *sampler, const wkv_generation_options *options,
                           wkv_generation **generation, wkv_error *error);
  wkv_status next(wkv_generation_piece *piece, wkv_error *error);
}

%extend wkv_session {
  wkv_status save(const char *path, const wkv_save_options *options, wkv_error *error) const;
  wkv_status serialize(const wkv_save_options *options, void *bytes, size_t capacity, size_t *bytes_count,
                       wkv_error *error) const;
  static wkv_status load(wkv_model *model, const char *path, wkv_session *session, wkv_error *error);
  static wkv_status deserialize(wkv_model *model, const void *bytes, size_t bytes_count, wkv_session *session,
                                wkv_error *error);
}
