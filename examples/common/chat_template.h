// SPDX-License-Identifier: Apache-2.0
// How a conversation is written down as text, as data: one entry a series of models.
#pragma once

namespace examples {

// How an answer is opened, and what is added to the user's message to ask for it.
struct ThinkMode {
  const char *name;
  const char *message_suffix;
  const char *opening;  // after the assistant's name
};

struct ChatTemplate {
  const char *name;
  const char *system, *user, *assistant;  // speakers, colon included
  const char *turn_end;                   // between two turns; a message never contains it
  const char *think_end;                  // ends the thinking that an opening began
  ThinkMode modes[6];                     // the first is the default; ends with a NULL name
};

// The G1 series. Every prompt ends right after a colon or a tag: the next token begins with its own space. The openings
// leave out the last '>' because the model was trained to write it.
inline constexpr ChatTemplate g1_template = {
    "g1",
    "System:",
    "User:",
    "Assistant:",
    "\n\n",
    "</think>",
    {{"off", "", ""},
     {"fast", "", " <think>\n</think"},
     {"on", "", " <think"},
     {"short", " (think a bit)", " <think"},
     {"long", " (think a lot)", " <think"},
     {nullptr, nullptr, nullptr}},
};

}  // namespace examples
