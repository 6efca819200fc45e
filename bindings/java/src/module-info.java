// SPDX-License-Identifier: Apache-2.0
/** RWKV-7 language models inside your program: libwkv for Java. */
module dev.wkv {
  exports dev.wkv;
}
