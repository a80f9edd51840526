/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 * Chunked framing as a table: what the next byte is, by what it may be (RFC 9112, 7.1). Data of a chunk is skipped by
 * its length. enum kvs_walk has the states.
 */
#ifndef KVS_LIB_FRAMING_BPF_H
#define KVS_LIB_FRAMING_BPF_H

#include "lib/scratch.bpf.h"

#define WALK_STOP (KVS_WALK_END)

enum { CLASS_OTHER, CLASS_HEX, CLASS_CR, CLASS_LF, CLASS_SEP, CLASSES };

static const __u8 class_of[256] = {
	['0' ... '9'] = CLASS_HEX, ['a' ... 'f'] = CLASS_HEX, ['A' ... 'F'] = CLASS_HEX, ['\r'] = CLASS_CR,
	['\n'] = CLASS_LF,	   [';'] = CLASS_SEP,	      [' '] = CLASS_SEP,	 ['\t'] = CLASS_SEP,
};

#define W(NAME) KVS_WALK_##NAME

static const __u8 next_state[KVS_WALK_N][CLASSES] = {
	/*                  other        hex          CR              LF             ; SP HT   */
	[W(SIZE_FIRST)] = { W(BAD), W(SIZE), W(BAD), W(BAD), W(BAD) },
	[W(SIZE)] = { W(BAD), W(SIZE), W(SIZE_LF), W(BAD), W(EXT) },
	[W(EXT)] = { W(EXT), W(EXT), W(SIZE_LF), W(BAD), W(EXT) },
	[W(SIZE_LF)] = { W(BAD), W(BAD), W(BAD), W(DATA), W(BAD) },
	[W(DATA)] = { W(BAD), W(BAD), W(BAD), W(BAD), W(BAD) },
	[W(DATA_CR)] = { W(BAD), W(BAD), W(DATA_LF), W(BAD), W(BAD) },
	[W(DATA_LF)] = { W(BAD), W(BAD), W(BAD), W(SIZE_FIRST), W(BAD) },
	[W(LINE)] = { W(TRAILER), W(TRAILER), W(LAST_LF), W(BAD), W(BAD) },
	[W(TRAILER)] = { W(TRAILER), W(TRAILER), W(TRAILER_LF), W(BAD), W(TRAILER) },
	[W(TRAILER_LF)] = { W(BAD), W(BAD), W(BAD), W(LINE), W(BAD) },
	[W(LAST_LF)] = { W(BAD), W(BAD), W(BAD), W(END), W(BAD) },
	[W(END)] = { W(BAD), W(BAD), W(BAD), W(BAD), W(BAD) },
	[W(BAD)] = { W(BAD), W(BAD), W(BAD), W(BAD), W(BAD) },
};

static __always_inline void walk_byte(struct walk *w, __u8 b)
{
	__u8 class = class_of[b];
	__u32 state = w->state;

	if (state >= KVS_WALK_N || class >= CLASSES) {
		w->state = KVS_WALK_BAD;
		return;
	}
	state = next_state[state][class];
	if (state == KVS_WALK_SIZE) {
		if (w->state == KVS_WALK_SIZE_FIRST)
			w->left = 0;
		if (w->left >> 59)
			state = KVS_WALK_BAD;
		w->left = w->left * 16 + (b <= '9' ? b - '0' : (b | 0x20) - 'a' + 10);
	} else if (state == KVS_WALK_DATA) {
		w->chunks++;
		if (!w->left) {
			w->chunks--;
			state = KVS_WALK_LINE;
		}
	}
	w->state = state;
	w->pos++;
}

/* Chunk data is skipped by length. True: something was skipped. */
static __always_inline bool walk_skip(struct walk *w)
{
	__u32 rest = w->to - w->pos;

	if (w->state != KVS_WALK_DATA)
		return false;
	if (rest > w->left)
		rest = (__u32)w->left;
	w->pos += rest;
	w->left -= rest;
	if (!w->left)
		w->state = KVS_WALK_DATA_CR;
	return true;
}

#endif
