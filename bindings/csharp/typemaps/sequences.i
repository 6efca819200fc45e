// SPDX-License-Identifier: Apache-2.0
// Sequences of objects: arrays of plain structs, whose handles the public layer holds until the call has returned.
%typemap(ctype) (wkv_step_item *items, size_t items_count),
  (const size_t *indices, wkv_cache **copies, size_t copies_count),
  (wkv_cache *const *caches, const size_t *sources, size_t caches_count) "wkv_csharp::Buffer"
%typemap(imtype) (wkv_step_item *items, size_t items_count),
  (const size_t *indices, wkv_cache **copies, size_t copies_count),
  (wkv_cache *const *caches, const size_t *sources, size_t caches_count) "NativeBuffer"
%typemap(cstype) (wkv_step_item *items, size_t items_count),
  (const size_t *indices, wkv_cache **copies, size_t copies_count),
  (wkv_cache *const *caches, const size_t *sources, size_t caches_count) "NativeBuffer"
%typemap(csin) (wkv_step_item *items, size_t items_count),
  (const size_t *indices, wkv_cache **copies, size_t copies_count),
  (wkv_cache *const *caches, const size_t *sources, size_t caches_count) "$csinput"

%typemap(in) (wkv_step_item *items, size_t items_count) (wkv_csharp::Items items) {
  if (!items.read($input)) return wkv_csharp::no_memory();
  $1 = items.data();
  $2 = items.size();
}
%typemap(argout) (wkv_step_item *items, size_t items_count) "items$argnum.give_back();"
%typemap(in) (const size_t *indices, wkv_cache **copies, size_t copies_count) (wkv_csharp::Choices choices) {
  if (!choices.read($input)) return wkv_csharp::no_memory();
  $1 = choices.indices();
  $2 = choices.caches();
  $3 = choices.size();
}
%typemap(argout) (const size_t *indices, wkv_cache **copies, size_t copies_count) "choices$argnum.give_back();"
%typemap(in) (wkv_cache *const *caches, const size_t *sources, size_t caches_count) (wkv_csharp::Choices choices) {
  if (!choices.read($input)) return wkv_csharp::no_memory();
  $1 = choices.caches();
  $2 = choices.indices();
  $3 = choices.size();
}

// An alternative token is a value.
%typemap(ctype) const wkv_token_probability * "wkv_token_probability"
%typemap(imtype) const wkv_token_probability * "NativeProbability"
%typemap(cstype) const wkv_token_probability * "NativeProbability"
%typemap(out, null="wkv_token_probability()") const wkv_token_probability * {
  if ($1)
    $result = *$1;
  else
    $result.token = -1;
}
%typemap(csout, excode=SWIGEXCODE) const wkv_token_probability * {
    NativeProbability probability = $imcall;$excode
    return probability;
  }

// A piece is read as a whole: a call for each field would cost more than all else that a token costs here.
%typemap(ctype) wkv_csharp::Piece *values "wkv_csharp::Piece *"
%typemap(imtype) wkv_csharp::Piece *values "out NativePiece"
%typemap(cstype) wkv_csharp::Piece *values "out NativePiece"
%typemap(csin) wkv_csharp::Piece *values "out $csinput"
%typemap(in) wkv_csharp::Piece *values "$1 = $input;"
%extend wkv_generation_piece {
  void read(wkv_csharp::Piece *values) { values->read(*$self); }
}
