/* SPDX-License-Identifier: Apache-2.0
 * Compiling: vocab_load.c reads the files and what ids stand for, load_encoder.c what the encoder needs.
 */
#ifndef KVS_MODEL_LOAD_INT_H
#define KVS_MODEL_LOAD_INT_H

#include <jansson.h>

#include "model/vocab_int.h"

enum spelling { BYTE_LEVEL, SENTENCEPIECE };

struct span {
	uint32_t off, len;
	bool known;
	bool word; /* its text is what its spelling means, so that text can become it by merging */
};

struct load_added {
	uint32_t id, flags;
	bool normalized, single_word;
	uint32_t off, len; /* in load.contents */
};

struct load {
	enum spelling spelling;
	int16_t byte_of[512];	 /* GPT-2's alphabet: code point → byte, -1: not in it */
	uint16_t letter_of[256]; /* and back */
	struct buf text;
	struct span *span;
	uint32_t n, cap;
	struct buf prefix;
	struct buf before, after;   /* ids of the post-processor */
	struct buf added, contents; /* struct load_added[]; their texts */

	/* the encoder's */
	struct image_rules rules;
	struct buf part[IMG_PARTS];
	char why[256]; /* there is none, because */

	char *name; /* the directory's */
	char *err;
	size_t err_len;
	const char *file;
};

/* --- vocab_load.c --- */
int load_fail(struct load *l, int r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
const char *load_type(const json_t *o); /* its "type", or "" */
struct str load_text(const struct load *l, uint32_t id);

/* --- load_encoder.c --- */
/* 0 with the parts filled in, or with l->why; -ENOMEM. */
int load_encoder(struct load *l, const json_t *root);
/* And what hangs on all added tokens, those of the configuration too. */
int load_added(struct load *l);
int load_words(struct load *l, const struct vocab *v);

#endif
