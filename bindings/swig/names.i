// SPDX-License-Identifier: Apache-2.0
// Names by pattern: wkv_model_info is ModelInfo, WKV_TYPE_F16 is TYPE_F16, and a function of a header that the class map
// has as a method is not there a second time.
#define WKV_API
%rename("%(camelcase)s", %$isclass) "";
%rename("%(regex:/^wkv_(.*)/\\1/)s", %$isfunction) "";
%rename("%(strip:[WKV_])s", %$isenumitem) "";
%rename("%(strip:[WKV_])s", %$isconstant) "";

%define %wkv_class(name, tag)
%rename(name) tag;
%enddef

%wkv_class(Model, wkv_model)
%wkv_class(ModelOptions, wkv_model_options)
%wkv_class(ModelInfo, wkv_model_info)
%wkv_class(MemoryInfo, wkv_memory_info)
%wkv_class(MemoryPlan, wkv_memory_plan)
%wkv_class(InitialState, wkv_initial_state)
%wkv_class(InitialStateOptions, wkv_initial_state_options)
%wkv_class(InitialStateInfo, wkv_initial_state_info)
%wkv_class(Cache, wkv_cache)
%wkv_class(CacheOptions, wkv_cache_options)
%wkv_class(CacheInfo, wkv_cache_info)
%wkv_class(SaveOptions, wkv_save_options)
%wkv_class(BlobInfo, wkv_blob_info)
%wkv_class(Sampler, wkv_sampler)
%wkv_class(SamplerOptions, wkv_sampler_options)
%wkv_class(StepOptions, wkv_step_options)
%wkv_class(Tokenizer, wkv_tokenizer)
%wkv_class(TokenizerInfo, wkv_tokenizer_info)
%wkv_class(Decoder, wkv_decoder)
%wkv_class(PrefixStore, wkv_prefix_store)
%wkv_class(PrefixStoreOptions, wkv_prefix_store_options)
%wkv_class(PrefixStoreInfo, wkv_prefix_store_info)
%wkv_class(Generation, wkv_generation)
%wkv_class(GenerationOptions, wkv_generation_options)
%wkv_class(GenerationPiece, wkv_generation_piece)
%wkv_class(TokenProbability, wkv_token_probability)
%wkv_class(Session, wkv_session)
%wkv_class(ConvertOptions, wkv_convert_options)
%wkv_class(DeviceInfo, wkv_device_info)

// Global functions that stay, since they belong to no object.
%rename(version) wkv_version;
%rename(abi_version) wkv_abi_version;
%rename(status_name) wkv_status_name;
%rename(device_count) wkv_device_count;
%rename(device_get_info) wkv_device_get_info;
%rename(convert) wkv_convert;
%rename("$ignore", regextarget=1, fullname=1, %$isfunction)
    "^wkv_(model|cache|initial_state|sampler|tokenizer|decoder|prefix_store|generation|session)_[a-z_]+$";

// What calls fill in or the maps replace.
%ignore wkv_error;
%ignore wkv_step_item;
%ignore wkv_token_bias;
%ignore wkv_prefix_storage;
%ignore struct_size;
%ignore reserved;
%ignore progress;
%ignore progress_user;
