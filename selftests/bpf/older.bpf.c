// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * For tests alone: the splice's programs as those of another version, which differs from this one in nothing else.
 */
#define KVS_ABI 14
#include "splice_tc.bpf.c"
