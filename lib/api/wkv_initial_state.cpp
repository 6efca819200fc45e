// SPDX-License-Identifier: Apache-2.0
// The C entries of initial_state.h.
#include <wkv/initial_state.h>

#include "api/edge.h"
#include "api/handles.h"
#include "engine/model.h"
#include "state/initial_state.h"

using namespace libwkv;

extern "C" {

wkv_status wkv_initial_state_load(wkv_model *model, const char *path, const wkv_initial_state_options *options,
                                  wkv_initial_state **state, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(model, "model");
    api::needed(path, "path");
    api::needed(state, "state");
    wkv_initial_state_options o = api::read_options(options, "options");
    std::shared_ptr<Model> owner = model->object;
    auto made = std::make_shared<const InitialState>(owner->hyper_parameters(), owner->account(), path, o.order);
    *state = new wkv_initial_state{std::move(made), std::move(owner)};
    return WKV_OK;
  });
}

wkv_status wkv_initial_state_get_info(const wkv_initial_state *state, wkv_initial_state_info *info, wkv_error *error) {
  return api::guard(error, [&] {
    api::needed(state, "state");
    api::check_info(info, "info");
    wkv_initial_state_info values{};
    values.may_be_rwkv6 = !state->object->warning().empty();
    values.bytes = state->object->bytes();
    api::write_text(values.warning, state->object->warning().c_str());
    api::write_info(info, values);
    return WKV_OK;
  });
}

void wkv_initial_state_release(wkv_initial_state *state) { delete state; }

}  // extern "C"
