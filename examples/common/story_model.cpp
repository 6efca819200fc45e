// SPDX-License-Identifier: Apache-2.0
// Puts the file WKV_STORY_MODEL, byte for byte, into the program.
#include "common/story_model.h"

#if defined(__APPLE__)
#define SECTION ".const_data"
#define SYMBOL "_"
#else
#define SECTION ".section .rodata"
#define SYMBOL ""
#endif

__asm__(SECTION
        "\n"
        ".balign 64\n"
        ".globl " SYMBOL "story_model_begin\n" SYMBOL
        "story_model_begin:\n"
        ".incbin \"" WKV_STORY_MODEL
        "\"\n"
        ".globl " SYMBOL "story_model_end\n" SYMBOL
        "story_model_end:\n"
        ".byte 0\n"
        ".text\n");
