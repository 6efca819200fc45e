// SPDX-License-Identifier: Apache-2.0
// Options, infos and sessions: structs that begin with struct_size. A new object is all defaults with its size set.
// Numbers are plain members. Text and arrays are set by functions and copied (owned.h), since a pointer into a collected
// language's memory does not stay where it is. Handles are set by functions too, since SWIG takes a pointer that is
// assigned to a member away from its proxy; the struct does not keep them alive.
%define %wkv_struct(tag)
%extend tag {
  tag() { return wkv_bind::make<tag>(); }
  ~tag() { wkv_bind::dispose($self); }
}
%enddef

%wkv_struct(wkv_model_options)
%wkv_struct(wkv_memory_plan)
%wkv_struct(wkv_initial_state_options)
%wkv_struct(wkv_cache_options)
%wkv_struct(wkv_save_options)
%wkv_struct(wkv_sampler_options)
%wkv_struct(wkv_step_options)
%wkv_struct(wkv_prefix_store_options)
%wkv_struct(wkv_generation_options)
%wkv_struct(wkv_convert_options)
%wkv_struct(wkv_session)
%wkv_struct(wkv_model_info)
%wkv_struct(wkv_memory_info)
%wkv_struct(wkv_initial_state_info)
%wkv_struct(wkv_cache_info)
%wkv_struct(wkv_blob_info)
%wkv_struct(wkv_tokenizer_info)
%wkv_struct(wkv_prefix_store_info)
%wkv_struct(wkv_device_info)
%wkv_struct(wkv_generation_piece)
%nodefaultctor wkv_token_probability;
%nodefaultdtor wkv_token_probability;

%ignore wkv_model_options::device;
%ignore wkv_model_options::kernels;
%extend wkv_model_options {
  void set_device(const char *text) { $self->device = wkv_bind::own($self).keep(0, text); }
  void set_kernels(const char *text) { $self->kernels = wkv_bind::own($self).keep(1, text); }
}

%ignore wkv_cache_options::initial_state;
%extend wkv_cache_options {
  void set_initial_state(const wkv_initial_state *state) { $self->initial_state = state; }
}

%ignore wkv_sampler_options::biases;
%ignore wkv_sampler_options::biases_count;
%ignore wkv_sampler_options::banned_tokens;
%ignore wkv_sampler_options::banned_tokens_count;
%ignore wkv_sampler_options::exempt_tokens;
%ignore wkv_sampler_options::exempt_tokens_count;
%extend wkv_sampler_options {
  void add_bias(int32_t token, float bias) {
    auto &kept = wkv_bind::own($self).biases;
    kept.push_back({token, bias});
    $self->biases = kept.data();
    $self->biases_count = kept.size();
  }
  void set_banned_tokens(const int32_t *tokens, size_t tokens_count) {
    $self->banned_tokens = wkv_bind::own($self).keep(0, tokens, tokens_count);
    $self->banned_tokens_count = tokens_count;
  }
  void set_exempt_tokens(const int32_t *tokens, size_t tokens_count) {
    $self->exempt_tokens = wkv_bind::own($self).keep(1, tokens, tokens_count);
    $self->exempt_tokens_count = tokens_count;
  }
}

%ignore wkv_prefix_store_options::directory;
%ignore wkv_prefix_store_options::storage;
%extend wkv_prefix_store_options {
  void set_directory(const char *path) { $self->directory = wkv_bind::own($self).keep(0, path); }
}

%ignore wkv_generation_options::prompt;
%ignore wkv_generation_options::prompt_bytes;
%ignore wkv_generation_options::prompt_tokens;
%ignore wkv_generation_options::prompt_tokens_count;
%ignore wkv_generation_options::stop_tokens;
%ignore wkv_generation_options::stop_tokens_count;
%ignore wkv_generation_options::stop_strings;
%ignore wkv_generation_options::stop_strings_count;
%ignore wkv_generation_options::tokenizer;
%ignore wkv_generation_options::prefix_store;
%extend wkv_generation_options {
  void set_tokenizer(wkv_tokenizer *tokenizer) { $self->tokenizer = tokenizer; }
  void set_prefix_store(wkv_prefix_store *store) { $self->prefix_store = store; }
  void set_prompt(const char *text, size_t text_bytes) {
    $self->prompt = wkv_bind::own($self).keep(0, text, text_bytes);
    $self->prompt_bytes = text_bytes;
  }
  void set_prompt_tokens(const int32_t *tokens, size_t tokens_count) {
    $self->prompt_tokens = wkv_bind::own($self).keep(0, tokens, tokens_count);
    $self->prompt_tokens_count = tokens_count;
  }
  void set_stop_tokens(const int32_t *tokens, size_t tokens_count) {
    $self->stop_tokens = wkv_bind::own($self).keep(1, tokens, tokens_count);
    $self->stop_tokens_count = tokens_count;
  }
  void add_stop_string(const char *text) {
    auto &own = wkv_bind::own($self);
    $self->stop_strings = own.add_string(text);
    $self->stop_strings_count = own.strings.size();
  }
}

%ignore wkv_convert_options::vocabulary_path;
%ignore wkv_convert_options::name;
%extend wkv_convert_options {
  void set_vocabulary_path(const char *path) { $self->vocabulary_path = wkv_bind::own($self).keep(0, path); }
  void set_name(const char *text) { $self->name = wkv_bind::own($self).keep(1, text); }
}

// A piece's text may hold NUL, and its unread text half a character: neither is a C string.
%immutable wkv_token_probability::token;
%immutable wkv_token_probability::log_probability;
%ignore wkv_generation_piece::text;
%ignore wkv_generation_piece::text_bytes;
%ignore wkv_generation_piece::unread_text;
%ignore wkv_generation_piece::unread_bytes;
%ignore wkv_generation_piece::alternatives;
%extend wkv_generation_piece {
  wkv_text get_text() { return {$self->text, $self->text_bytes}; }
  wkv_bytes get_unread() { return {$self->unread_text, $self->unread_bytes}; }
  const wkv_token_probability *get_alternative(int32_t index) {
    return index >= 0 && index < $self->alternatives_count ? $self->alternatives + index : NULL;
  }
}

// A session owns its copy of the scores, and the handles that a load wrote until they are taken.
%ignore wkv_session::logits;
%ignore wkv_session::logits_count;
%newobject wkv_session::take_cache;
%newobject wkv_session::take_sampler;
%newobject wkv_session::take_generation;
%ignore wkv_session::cache;
%ignore wkv_session::sampler;
%ignore wkv_session::generation;
%ignore wkv_session::tokenizer;
%extend wkv_session {
  void set_tokenizer(wkv_tokenizer *tokenizer) { $self->tokenizer = tokenizer; }
  void lend_parts(wkv_cache *cache, wkv_sampler *sampler, wkv_generation *generation) {
    $self->cache = cache;
    $self->sampler = sampler;
    $self->generation = generation;
  }
  void set_logits(const float *logits, size_t logits_count) {
    $self->logits = wkv_bind::own($self).keep_floats(logits, logits_count);
    $self->logits_count = logits_count;
  }
  void reserve_logits(size_t count) {
    $self->logits = wkv_bind::own($self).keep_floats(NULL, count);
    $self->logits_count = count;
  }
  bool get_logits(float *values, size_t values_count) { return wkv_bind::read_logits(*$self, values, values_count); }
  wkv_cache *take_cache() { return std::exchange($self->cache, nullptr); }
  wkv_sampler *take_sampler() { return std::exchange($self->sampler, nullptr); }
  wkv_generation *take_generation() { return std::exchange($self->generation, nullptr); }
  // Parts that the caller lent for a save are not the session's to release.
  void forget_parts() {
    $self->cache = nullptr;
    $self->sampler = nullptr;
    $self->generation = nullptr;
  }
}
